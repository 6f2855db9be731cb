"""The worker and its port: one llama.cpp context in a child process (or in threads), and the way to it.

``python -m paddock.engine.worker FD`` is the child; a port starts it, and nobody else does.
"""
