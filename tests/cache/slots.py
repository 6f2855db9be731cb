"""What the tests of the store share: an arena in plain memory, identities, saved blocks."""

from __future__ import annotations

import hashlib

from paddock.cache.block_file import checksum_of
from paddock.cache.block_store import SavedBlock
from paddock.cache.keys import BlockContent, Chain, Identity
from paddock.errors import CacheMemoryExhausted

BLOCK_TOKENS = 4
PAYLOAD_BYTES = 4096


class PlainSlots:
    """As :class:`paddock.cache.arena.Arena`, in a bytearray; knows which slots are taken."""

    def __init__(self, capacity: int = 64, payload_bytes: int = PAYLOAD_BYTES) -> None:
        self.payload_bytes = self.slot_bytes = payload_bytes
        self.capacity = capacity
        self.memory = bytearray(capacity * payload_bytes)
        self.free_offsets = [number * payload_bytes for number in range(capacity)]
        self.taken_offsets: set[int] = set()
        self.most_taken = 0

    @property
    def taken(self) -> int:
        return len(self.taken_offsets)

    def allocate(self) -> int:
        if not self.free_offsets:
            raise CacheMemoryExhausted(self.payload_bytes, "all slots are taken")
        offset = self.free_offsets.pop()
        self.taken_offsets.add(offset)
        self.most_taken = max(self.most_taken, self.taken)
        return offset

    def write(self, offset: int, payload: memoryview) -> None:
        self.payload(offset)[:] = payload

    def payload(self, offset: int) -> memoryview:
        assert offset in self.taken_offsets, "nobody may touch a slot that is free"
        return memoryview(self.memory)[offset : offset + self.payload_bytes]

    def free(self, offset: int) -> None:
        self.taken_offsets.remove(offset)
        self.free_offsets.append(offset)


def identity(model: str = "model", *, payload_bytes: int = PAYLOAD_BYTES, **options: str) -> Identity:
    texts = {"build": "build", "context": "context", "recipe": "recipe", **options}
    return Identity(model=model, block_tokens=BLOCK_TOKENS, payload_bytes=payload_bytes, **texts)


def chain_of(tokens: list[int], kind: Identity | None = None, tenant: str = "") -> Chain:
    """The chain of a prompt."""
    chain = Chain((kind or identity()).root(tenant), BLOCK_TOKENS)
    chain.append_prompt(tokens)
    return chain


def payload_of(key: bytes, n_bytes: int = PAYLOAD_BYTES) -> bytes:
    """The payload that a model would make for this key: of one key always the same."""
    return hashlib.shake_128(key).digest(n_bytes)


def save(slots: PlainSlots, content: BlockContent, offset: int) -> SavedBlock:
    """What a worker does with a reserved slot."""
    payload = payload_of(content.key, slots.payload_bytes)
    with slots.payload(offset) as view:
        view[:] = payload
    return SavedBlock(content, offset, checksum_of(payload))
