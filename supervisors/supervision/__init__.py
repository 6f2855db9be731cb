"""Supervisors: child specifications, strategies, restarts, applications, the tree."""
