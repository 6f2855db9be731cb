"""Which requests run, and which of their rows go into the next decode call."""
