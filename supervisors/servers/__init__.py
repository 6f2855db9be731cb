"""The behaviours: generic servers and state machines."""
