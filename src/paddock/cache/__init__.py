"""The store of KV blocks: keys, index, tier in RAM, tier on disk, file format."""
