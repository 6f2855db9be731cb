"""Processes: identity, mailbox, life and end, links and monitors, waiting for each other, crash reports."""
