"""Where a block lies, and what an arena of slots offers."""

from __future__ import annotations

from typing import Protocol

import attrs

from paddock.cache.keys import BlockContent

__all__ = ["DiskBlock", "RamBlock", "Slot", "Slots"]


class Slots(Protocol):
    """An arena of equal slots, as the store uses it; :class:`paddock.cache.arena.Arena` is one."""

    @property
    def slot_bytes(self) -> int:
        """Bytes that a slot takes from the budget."""
        ...

    @property
    def payload_bytes(self) -> int:
        """Bytes of the payload in a slot."""
        ...

    @property
    def capacity(self) -> int:
        """Slots in all."""
        ...

    @property
    def taken(self) -> int:
        """Slots that are allocated."""
        ...

    def allocate(self) -> int:
        """The offset of a free slot; raises CacheMemoryExhausted when there is none."""
        ...

    def write(self, offset: int, payload: memoryview) -> None:
        """Puts a payload into a slot; any thread. Raises CacheMemoryExhausted."""
        ...

    def payload(self, offset: int) -> memoryview:
        """The payload of a slot that was written; any thread."""
        ...

    def free(self, offset: int) -> None:
        """Gives a slot back."""
        ...


@attrs.frozen
class Slot:
    """A slot of one model's arena."""

    model: int
    """The number under which the store knows the model."""
    offset: int


@attrs.define(eq=False)
class RamBlock:
    """A block whose payload lies in a slot."""

    content: BlockContent
    slot: Slot
    checksum: bytes
    """xxh3_128 of the payload, as made by the worker that saved it or read from the block's file."""
    pins: int = 0
    spilling: bool = False
    """A thread reads the slot at this moment: it must not be freed."""
    condemned: bool = False
    """Out of the index, as its payload failed verification or nobody wants it; its slot is freed with the last pin."""

    @property
    def held(self) -> bool:
        """Whether somebody relies on the slot."""
        return self.pins > 0 or self.spilling


@attrs.frozen
class DiskBlock:
    """A block in a file. Blocks of one model share one of these values, as all that differs between them is the key."""

    identity: str
    """Hexadecimal digest of the identity: the folder's name."""
    file_bytes: int
