"""Text, without input or output: token pieces, incremental UTF-8, stop strings, chat templates.

Import from the modules: a worker needs the piece table alone, and starts without the template engine.
"""
