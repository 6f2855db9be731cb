"""Calls and requests between processes: replies, timeouts, collections."""
