"""The world that processes live in: its block, its Ctrl-C, the watch over what blocks it."""
