"""The store's state: index, models, leases, reservations. It outlives the processes that work on it.

Synchronous, and whole between any two calls, so that a process that crashes leaves nothing half done: a restarted one
goes on with every block. Belongs to the trio thread; nothing here blocks or does I/O but ``madvise`` for freed slots.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import attrs

import supervisors as sup
from paddock.cache.blocks import RamBlock, Slot, Slots
from paddock.cache.index import BlockIndex
from paddock.cache.keys import BlockContent, Identity
from paddock.cache.statistics import CacheCounters
from paddock.errors import CacheError, CacheMemoryExhausted

__all__ = ["BlockStore", "ModelHandle", "OpenModel", "PinnedPrefix", "RestorableBlock", "SavedBlock"]

Owner = sup.Pid[Any] | None

_SAVE_SECONDS = 10.0
"""A save that was begun is published within this time."""


@attrs.frozen
class ModelHandle:
    """A model as the store knows it, from :meth:`BlockStore.open_model` on until it is closed."""

    number: int
    identity: Identity


@attrs.frozen
class RestorableBlock:
    """What a worker needs to restore a block: where its payload lies, and how to check it."""

    offset: int
    checksum: bytes


@attrs.frozen
class PinnedPrefix:
    """The stored beginning of a sequence. Its slots stay as they are until the prefix is released."""

    number: int
    blocks: tuple[RestorableBlock, ...]
    tokens: int
    from_disk: int
    """How many of the blocks were read from disk for this."""


@attrs.frozen
class SavedBlock:
    """A block whose payload a worker has written into a slot that was reserved for it."""

    content: BlockContent
    offset: int
    checksum: bytes


@attrs.define(eq=False)
class OpenModel:
    """One open model."""

    handle: ModelHandle
    identity: str
    digest: bytes
    slots: Slots
    io: int = 0
    """Threads that read or write slots of the arena at this moment."""
    closing: bool = False


@attrs.define(eq=False)
class _Lease:
    owner: Owner
    model: int
    blocks: list[RamBlock]
    from_disk: int = 0


class BlockStore:
    """See the module. ``spills`` says whether published blocks are to be written to disk; the disk tier sets it."""

    def __init__(self, ram_budget: int, disk_budget: int) -> None:
        self.index = BlockIndex(ram_budget, disk_budget)
        self.counters = CacheCounters()
        self.spills = False
        self._models: dict[int, OpenModel] = {}
        self._next_number = 1
        self._leases: dict[int, _Lease] = {}
        self._reserved: dict[Slot, Owner] = {}
        self._forgotten: dict[bytes, float] = {}
        """Blocks that are not wanted, and until when one that is published was under way before that."""

    # --- models -------------------------------------------------------------------------------------------

    def open_model(self, identity: Identity, slots: Slots) -> ModelHandle:
        """Takes in a model's arena. Raises CacheError where its payloads do not have the identity's size."""
        if slots.payload_bytes != identity.payload_bytes:
            raise CacheError(
                f"the arena holds payloads of {slots.payload_bytes} bytes, the identity says {identity.payload_bytes}"
            )
        handle = ModelHandle(self._next_number, identity)
        self._next_number += 1
        digest = identity.digest()
        self._models[handle.number] = OpenModel(handle, digest.hex(), digest, slots)
        self.index.add_model(handle.number, slots.slot_bytes)
        return handle

    def model(self, handle: ModelHandle) -> OpenModel:
        """The open model. Raises CacheError for one that is closed."""
        model = self._models.get(handle.number)
        if model is None or model.closing:
            raise CacheError("this model is closed for the cache")
        return model

    def model_of(self, block: RamBlock) -> OpenModel:
        """The model whose arena holds the block."""
        return self._models[block.slot.model]

    @property
    def models(self) -> list[OpenModel]:
        """All models that are open or closing."""
        return list(self._models.values())

    def begin_close(self, handle: ModelHandle) -> None:
        """Nothing is found, reserved or published for the model any more."""
        if (model := self._models.get(handle.number)) is not None:
            model.closing = True
            self.index.give_up_due(handle.number)

    def finish_close(self, handle: ModelHandle) -> bool:
        """Gives all slots of a closing model back, once no thread uses them; whether that is done."""
        model = self._models.get(handle.number)
        if model is None:
            return True
        if model.io:
            return False
        for slot in self.index.remove_model(handle.number):
            self._reserved.pop(slot, None)
            model.slots.free(slot.offset)
        for number, lease in list(self._leases.items()):
            if lease.model == handle.number:
                del self._leases[number]
        del self._models[handle.number]
        return True

    # --- look-up ------------------------------------------------------------------------------------------

    def open_lease(self, handle: ModelHandle, owner: Owner) -> int:
        """A lease that blocks of a model can be pinned under; its number. Raises CacheError for one that is closed."""
        self.model(handle)
        number = self._next_number
        self._next_number += 1
        self._leases[number] = _Lease(owner, handle.number, [])
        return number

    def pin_run(self, lease: int, keys: Sequence[bytes], most: int) -> int:
        """Pins, behind those that the lease holds, the blocks that come next and are in RAM; how many it holds then."""
        held = self._leases[lease].blocks
        model = self._leases[lease].model
        for key in keys[len(held) : most]:
            block = self.index.in_ram(model, key)
            if block is None:
                break
            self.index.pin(block)
            held.append(block)
        return len(held)

    def count_fetched(self, lease: int, blocks: int) -> None:
        """Notes that blocks of the lease came from disk."""
        self._leases[lease].from_disk += blocks

    def has_lease(self, lease: int) -> bool:
        """False once its owner has ended or its model is closed."""
        return lease in self._leases

    def prefix_of(self, lease: int, block_tokens: int) -> PinnedPrefix:
        """What the lease holds, counted as one look-up. A lease that holds nothing is closed."""
        entry = self._leases[lease]
        counters = self.counters
        tokens = len(entry.blocks) * block_tokens
        if entry.blocks:
            counters.hits += 1
            counters.reused_tokens += tokens
        else:
            counters.misses += 1
            del self._leases[lease]
        blocks = tuple(RestorableBlock(block.slot.offset, block.checksum) for block in entry.blocks)
        return PinnedPrefix(lease, blocks, tokens, entry.from_disk)

    def release(self, lease: int) -> None:
        """Unpins a prefix, the last block first, so that of a sequence the end is evicted before the beginning."""
        entry = self._leases.pop(lease, None)
        for block in reversed(entry.blocks) if entry is not None else ():
            self._free(self.index.unpin(block))

    # --- saving -------------------------------------------------------------------------------------------

    def reserve(self, handle: ModelHandle, count: int, owner: Owner) -> list[int]:
        """Offsets of at most ``count`` slots, fewer where the budget does not hold more. Evicts what has to go."""
        model = self.model(handle)
        offsets: list[int] = []
        for _ in range(count):
            slot = self._reserve_one(model, owner)
            if slot is None:
                self.counters.refused_reservations += count - len(offsets)
                break
            offsets.append(slot.offset)
        return offsets

    def _reserve_one(self, model: OpenModel, owner: Owner) -> Slot | None:
        number, slots = model.handle.number, model.slots
        victims = self.index.room_in_ram(number, arena_full=slots.taken >= slots.capacity)
        if victims is None:
            return None
        for victim in victims:
            self.counters.evicted_ram_blocks += 1
            self.counters.lost_blocks += self.index.on_disk(victim.content.key) is None
            self._free(self.index.evict(victim))
        try:
            slot = Slot(number, slots.allocate())
        except CacheMemoryExhausted:
            return None
        self.index.take_slot(slot)
        self._reserved[slot] = owner
        return slot

    def publish(
        self, handle: ModelHandle, saved: Sequence[SavedBlock], *, spill: bool = True, now: float = -math.inf
    ) -> None:
        """Makes saved blocks findable; a slot whose block is known already is freed. Slots must be reserved ones.

        What a closed model publishes, or a slot that its owner gave up, is passed over.
        """
        model = self._models.get(handle.number)
        if model is None or model.closing:
            return
        for block in saved:
            slot = Slot(handle.number, block.offset)
            if slot not in self._reserved:
                continue
            del self._reserved[slot]
            if now < self._forgotten.get(block.content.key, -math.inf):
                self.index.give_back_slot(slot)
                self._free(slot)
            elif self.index.publish(block.content, slot, block.checksum, spill=spill and self.spills) is None:
                self.counters.known_blocks += 1
                self.index.give_back_slot(slot)
                self._free(slot)
            elif spill:
                self.counters.saved_blocks += 1

    def give_back(self, handle: ModelHandle, offsets: Sequence[int]) -> None:
        """Frees reserved slots that nothing was saved in. Idempotent."""
        for offset in offsets:
            slot = Slot(handle.number, offset)
            if slot in self._reserved:
                del self._reserved[slot]
                self.index.give_back_slot(slot)
                self._free(slot)

    def condemn(self, keys: Sequence[bytes]) -> None:
        """Drops blocks whose payload in RAM failed its verification; the next save makes them again."""
        for key in keys:
            for block in self.index.in_any_arena(key):
                self.condemn_block(block)

    def forget(self, keys: Sequence[bytes], now: float) -> None:
        """Drops blocks for good. One that is being saved at this moment is dropped when it is published."""
        for key in [key for key, until in self._forgotten.items() if until <= now]:
            del self._forgotten[key]
        for key in keys:
            self._forgotten[key] = now + _SAVE_SECONDS
            for block in self.index.in_any_arena(key):
                self._free(self.index.condemn(block))

    def leave_ram(self, handle: ModelHandle, keys: Sequence[bytes]) -> None:
        """Frees the slots of blocks that are on disk as well, unless somebody relies on them."""
        if handle.number not in self._models:
            return
        for key in reversed(keys):
            block = self.index.in_ram(handle.number, key)
            if block is not None and not block.held and self.index.on_disk(key) is not None:
                self._free(self.index.evict(block))

    def condemn_block(self, block: RamBlock) -> None:
        """The same for a block in one arena."""
        self.counters.verification_failures += 1
        self._free(self.index.condemn(block))

    def _free(self, slot: Slot | None) -> None:
        if slot is not None and (model := self._models.get(slot.model)) is not None:
            model.slots.free(slot.offset)

    # --- owners -------------------------------------------------------------------------------------------

    @property
    def owners(self) -> set[sup.Pid[Any]]:
        """All processes that hold leases or reservations."""
        held = [lease.owner for lease in self._leases.values()] + list(self._reserved.values())
        return {owner for owner in held if owner is not None}

    def drop_owner(self, owner: sup.Pid[Any]) -> None:
        """Releases all that an ended process held."""
        for number in [number for number, lease in self._leases.items() if lease.owner is owner]:
            self.release(number)
        for slot in [slot for slot, holder in self._reserved.items() if holder is owner]:
            del self._reserved[slot]
            self.index.give_back_slot(slot)
            self._free(slot)

    @property
    def pinned_blocks(self) -> int:
        """Blocks under leases; one that several leases hold counts for each."""
        return sum(len(lease.blocks) for lease in self._leases.values())

    # --- threads ------------------------------------------------------------------------------------------

    def begin_spill(self, block: RamBlock) -> OpenModel:
        """A thread is about to read the block's slot."""
        model = self.model_of(block)
        model.io += 1
        self.index.begin_spill(block)
        return model

    def end_spill(self, block: RamBlock, model: OpenModel, *, due: bool) -> None:
        """The thread has ended, or was never started; ``due``: the block is to be written still."""
        model.io -= 1
        self._free(self.index.end_spill(block, due=due))
