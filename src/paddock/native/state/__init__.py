"""The state of one sequence as bytes: how llama.cpp lays it out, and how it is cut by tokens and put together again."""
