"""Conversations: their turns, how a turn continues the one before, and where they are kept."""
