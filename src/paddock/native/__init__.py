"""The only code that touches llama_cpp: one model, one context, synchronous. Import what you need from its modules.

``batch`` (values that cross process borders) and ``row_order`` load no llama.cpp; ``model`` and ``context`` do when
used.
"""
