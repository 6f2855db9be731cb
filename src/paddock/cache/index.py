"""Which blocks there are, in which tier, and which of them go when there is no room. Pure bookkeeping, no I/O.

Every byte of a tier is taken from its budget before it is made: a slot when it is handed out, a file before it is
written. What is pinned is not in the order of eviction at all, so no search ever has to step over it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence

import attrs

from paddock.cache.blocks import DiskBlock, RamBlock, Slot
from paddock.cache.keys import BlockContent

__all__ = ["BlockIndex", "Found"]

_CLEAN_SEARCH = 64
"""Among so many of the oldest blocks, one that is on disk already goes before one that would be lost."""


@attrs.frozen
class Found:
    """A walk's result: the first blocks of a sequence, without a gap. ``disk`` are those of them not in RAM."""

    blocks: int
    disk: tuple[bytes, ...]


class BlockIndex:
    """RAM tier and disk tier of all models. Synchronous; belongs to one thread.

    Keys are unique over models and tenants, since they hash the identity.
    """

    def __init__(self, ram_budget: int, disk_budget: int) -> None:
        self.ram_budget = ram_budget
        self.disk_budget = disk_budget
        self.ram_bytes = 0
        self.disk_bytes = 0
        self.most_ram_bytes = 0
        self.most_disk_bytes = 0
        self._slot_bytes: dict[int, int] = {}
        self._ram: dict[int, dict[bytes, RamBlock]] = {}
        """For each model the blocks in its arena; two models with one identity may hold one key each."""
        self._idle: OrderedDict[RamBlock, None] = OrderedDict()
        """Unpinned blocks in RAM, the next to go first."""
        self._slots: dict[Slot, RamBlock | None] = {}
        """Every slot that is handed out; None for one that nobody has published a block in."""
        self._due: dict[RamBlock, None] = {}
        """Blocks in RAM that are to be written to disk, in order of publication."""
        self._disk: OrderedDict[bytes, DiskBlock] = OrderedDict()
        """Blocks on disk, the next to go first."""
        self._touched: dict[bytes, None] = {}
        """Blocks on disk whose use their files' times do not show yet."""
        self._gone: set[bytes] | None = None
        """Files removed since the listing began that is being taken in; None while there is none."""

    # --- models -------------------------------------------------------------------------------------------

    def add_model(self, model: int, slot_bytes: int) -> None:
        """A model whose slots take ``slot_bytes`` each."""
        self._slot_bytes[model] = slot_bytes
        self._ram[model] = {}

    def blocks_of(self, model: int) -> list[RamBlock]:
        """The blocks of one model in RAM."""
        return list(self._ram[model].values())

    def remove_model(self, model: int) -> list[Slot]:
        """Takes out a model with all its slots, pinned or not; returns them. Its blocks on disk stay."""
        for block in self.blocks_of(model):
            self._forget(block)
        slots = [slot for slot in self._slots if slot.model == model]
        for slot in slots:
            self._give_back(slot)
        del self._slot_bytes[model], self._ram[model]
        return slots

    # --- look-up ------------------------------------------------------------------------------------------

    def walk(self, model: int, keys: Sequence[bytes], most: int | None = None) -> Found:
        """The longest prefix of ``keys`` that is stored for a model, at most ``most`` blocks."""
        ram, disk = self._ram[model], self._disk
        limit = len(keys) if most is None else min(most, len(keys))
        on_disk: list[bytes] = []
        for number in range(limit):
            key = keys[number]
            if key not in ram:
                if key not in disk:
                    return Found(number, tuple(on_disk))
                on_disk.append(key)
        return Found(limit, tuple(on_disk))

    def in_ram(self, model: int, key: bytes) -> RamBlock | None:
        """The block in the model's arena."""
        return self._ram[model].get(key)

    def in_any_arena(self, key: bytes) -> list[RamBlock]:
        """The block in each arena that holds it."""
        return [ram[key] for ram in self._ram.values() if key in ram]

    def on_disk(self, key: bytes) -> DiskBlock | None:
        """The block on disk."""
        return self._disk.get(key)

    @property
    def ram_blocks(self) -> int:
        """Blocks in RAM."""
        return sum(map(len, self._ram.values()))

    @property
    def disk_blocks(self) -> int:
        """Blocks on disk."""
        return len(self._disk)

    @property
    def due_blocks(self) -> int:
        """Blocks in RAM that still have to be written to disk."""
        return len(self._due)

    # --- RAM ----------------------------------------------------------------------------------------------

    def room_in_ram(self, model: int, *, arena_full: bool) -> list[RamBlock] | None:
        """Which blocks must go so that ``model`` gets one more slot: none, some, or None where it cannot have one.

        ``arena_full``: the model's arena has no free slot, so one of its own blocks has to go. Nothing is changed.
        """
        if self._slot_bytes[model] > self.ram_budget:
            return None
        need = self.ram_bytes + self._slot_bytes[model] - self.ram_budget
        victims: list[RamBlock] = []
        if arena_full:
            victim = self._victim(victims, model)
            if victim is None:
                return None
            victims.append(victim)
            need -= self._slot_bytes[model]
        while need > 0:
            victim = self._victim(victims, None)
            if victim is None:
                return None
            victims.append(victim)
            need -= self._slot_bytes[victim.slot.model]
        return victims

    def _victim(self, chosen: list[RamBlock], model: int | None) -> RamBlock | None:
        oldest: RamBlock | None = None
        looked = 0
        for block in self._idle:
            if block.spilling or (model is not None and block.slot.model != model) or block in chosen:
                continue
            if block not in self._due:
                return block
            oldest = oldest or block
            looked += 1
            if looked >= _CLEAN_SEARCH:
                break
        return oldest

    def take_slot(self, slot: Slot) -> None:
        """Counts a slot that is handed out. There must be room for it."""
        bytes_after = self.ram_bytes + self._slot_bytes[slot.model]
        if bytes_after > self.ram_budget or slot in self._slots:
            raise ValueError(f"{slot} is beyond the budget or handed out already")
        self._slots[slot] = None
        self.ram_bytes = bytes_after
        self.most_ram_bytes = max(self.most_ram_bytes, bytes_after)

    def give_back_slot(self, slot: Slot) -> None:
        """Counts a slot no more that nothing was published in."""
        if self._slots[slot] is not None:
            raise ValueError(f"{slot} holds a block")
        self._give_back(slot)

    def _give_back(self, slot: Slot) -> None:
        del self._slots[slot]
        self.ram_bytes -= self._slot_bytes[slot.model]

    def publish(self, content: BlockContent, slot: Slot, checksum: bytes, *, spill: bool) -> RamBlock | None:
        """Makes the payload in ``slot`` findable; None where the key is in RAM already, and the slot stays empty.

        ``spill``: it is to be written to disk, unless it is there.
        """
        if self._slots[slot] is not None:
            raise ValueError(f"{slot} holds a block already")
        known = self._ram[slot.model].get(content.key)
        if known is not None:
            self._refresh(known)
            return None
        block = RamBlock(content, slot, checksum)
        self._slots[slot] = block
        self._ram[slot.model][content.key] = block
        self._idle[block] = None
        if content.key in self._disk:
            self._touch_disk(content.key)
        elif spill:
            self._due[block] = None
        return block

    def pin(self, block: RamBlock) -> None:
        """Keeps the block where it is until :meth:`unpin`. Counted."""
        block.pins += 1
        if block.pins == 1:
            self._idle.pop(block, None)

    def unpin(self, block: RamBlock) -> Slot | None:
        """Ends one pin; the block is the most recently used one then. The slot, where it has become free."""
        if block.pins < 1:
            raise ValueError("the block is not pinned")
        block.pins -= 1
        if block.pins:
            return None
        if block.condemned:
            return self._free_condemned(block)
        if self._holds(block):
            self._idle[block] = None
            self._touch_disk(block.content.key)
        return None

    def _holds(self, block: RamBlock) -> bool:
        return self._ram.get(block.slot.model, {}).get(block.content.key) is block

    def _refresh(self, block: RamBlock) -> None:
        if block in self._idle:
            self._idle.move_to_end(block)
        self._touch_disk(block.content.key)

    def _touch_disk(self, key: bytes) -> None:
        if key in self._disk:
            self._disk.move_to_end(key)
            self._touched[key] = None

    def take_touched(self, most: int) -> list[tuple[bytes, DiskBlock]]:
        """Blocks on disk that were used since they were last returned here; for others who share the folder."""
        taken: list[tuple[bytes, DiskBlock]] = []
        while self._touched and len(taken) < most:
            key, _ = self._touched.popitem()
            if (block := self._disk.get(key)) is not None:
                taken.append((key, block))
        return taken

    def evict(self, block: RamBlock) -> Slot:
        """Takes an idle block out of RAM; its slot is free."""
        if block.held or not self._holds(block):
            raise ValueError("a block that is pinned or gone cannot be evicted")
        self._forget(block)
        self._give_back(block.slot)
        return block.slot

    def condemn(self, block: RamBlock) -> Slot | None:
        """Takes a block that is not to be found any more out of RAM at once. Its slot, where it is free."""
        if not self._holds(block):
            return None
        self._forget(block)
        block.condemned = True
        return self._free_condemned(block)

    def _free_condemned(self, block: RamBlock) -> Slot | None:
        if block.held or block.slot not in self._slots:
            return None
        self._give_back(block.slot)
        return block.slot

    def _forget(self, block: RamBlock) -> None:
        del self._ram[block.slot.model][block.content.key]
        self._idle.pop(block, None)
        self._due.pop(block, None)

    # --- from RAM to disk ---------------------------------------------------------------------------------

    def next_due(self) -> RamBlock | None:
        """The next block to write: the first published, so that a block never waits for those after it."""
        for block in self._due:
            if not block.spilling:
                return block
        return None

    def begin_spill(self, block: RamBlock) -> None:
        """A thread is about to read the block's slot."""
        block.spilling = True

    def end_spill(self, block: RamBlock, *, due: bool = False) -> Slot | None:
        """No thread reads the slot any more. ``due``: the block is to be written still. The slot, where it has become
        free."""
        block.spilling = False
        if not due:
            self._due.pop(block, None)
        return self._free_condemned(block) if block.condemned else None

    def give_up_due(self, model: int | None = None) -> int:
        """Nothing of this model, or of any, is to be written for now; returns how many blocks were due."""
        given_up = [block for block in self._due if model is None or block.slot.model == model]
        for block in given_up:
            del self._due[block]
        return len(given_up)

    def is_due(self, model: int | None) -> bool:
        """Whether a block of this model, or of any, still has to be written to disk."""
        return any(model is None or block.slot.model == model for block in self._due)

    def unsaved(self, model: int | None) -> int:
        """Blocks in RAM, of one model or of all, that are not on disk."""
        models = self._ram if model is None else [model]
        return sum(key not in self._disk for number in models for key in self._ram.get(number, ()))

    def make_all_due(self) -> None:
        """Everything in RAM that is not on disk is due again, in order of use."""
        for ram in self._ram.values():
            self._due.update((block, None) for key, block in ram.items() if key not in self._disk)

    # --- disk ---------------------------------------------------------------------------------------------

    def room_on_disk(self, file_bytes: int) -> list[bytes] | None:
        """Keys of the files that must go so that one of ``file_bytes`` fits; None where it never does."""
        if file_bytes > self.disk_budget:
            return None
        need = self.disk_bytes + file_bytes - self.disk_budget
        victims: list[bytes] = []
        oldest = iter(self._disk.items())
        while need > 0:
            entry = next(oldest, None)
            if entry is None:
                return None
            victims.append(entry[0])
            need -= entry[1].file_bytes
        return victims

    def take_disk_bytes(self, file_bytes: int) -> None:
        """Counts a file that is about to be written."""
        self.disk_bytes += file_bytes
        self.most_disk_bytes = max(self.most_disk_bytes, self.disk_bytes)

    def give_back_disk_bytes(self, file_bytes: int) -> None:
        """Counts a file no more that was not written."""
        self.disk_bytes -= file_bytes

    def add_file(self, key: bytes, block: DiskBlock, *, counted: bool = False) -> None:
        """A file that is there, the most recently used. ``counted``: its bytes were taken before it was written."""
        known = self._disk.pop(key, None)
        if known is not None:
            self.disk_bytes -= known.file_bytes
        if not counted:
            self.take_disk_bytes(block.file_bytes)
        self._disk[key] = block
        for other in self.in_any_arena(key):
            if not other.spilling:
                self._due.pop(other, None)

    def begin_listing(self) -> None:
        """The folder is about to be listed."""
        self._gone = set()

    def end_listing(self) -> None:
        """The listing has been taken in."""
        self._gone = None

    def add_older_files(self, files: Iterable[tuple[bytes, DiskBlock]]) -> None:
        """Files of a listing, the latest used first. What is known already stays where it is in the order, and what was
        removed since the listing began is not believed to be there."""
        gone = self._gone or ()
        for key, block in files:
            if key not in self._disk and key not in gone:
                self.add_file(key, block)
                self._disk.move_to_end(key, last=False)

    def remove_file(self, key: bytes) -> DiskBlock | None:
        """A file that is gone, or is about to be. A block that is in RAM as well stays there."""
        if self._gone is not None:
            self._gone.add(key)
        block = self._disk.pop(key, None)
        if block is not None:
            self.disk_bytes -= block.file_bytes
        return block

    def excess_files(self) -> list[bytes]:
        """Files over the budget, which others may have written; the oldest."""
        need, victims = self.disk_bytes - self.disk_budget, []
        for key, block in self._disk.items():
            if need <= 0:
                break
            victims.append(key)
            need -= block.file_bytes
        return victims

    def forget_files(self) -> None:
        """The folder is not usable: nothing is on disk as far as this index is concerned."""
        self._disk.clear()
        self._touched.clear()
        self.disk_bytes = 0

    def files(self) -> Iterator[tuple[bytes, DiskBlock]]:
        """All files, the next to go first. Not to be changed meanwhile."""
        return iter(self._disk.items())
