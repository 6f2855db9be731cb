"""What the sequences of one model reuse from the KV store, and what they save into it."""
