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
        self._ram: dict[bytes, RamBlock] = {}
        self._idle: OrderedDict[bytes, RamBlock] = OrderedDict()
        """Unpinned blocks in RAM, the next to go first."""
        self._slots: dict[Slot, RamBlock | None] = {}
        """Every slot that is handed out; None for one that nobody has published a block in."""
        self._due: OrderedDict[bytes, RamBlock] = OrderedDict()
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

    def blocks_of(self, model: int) -> list[RamBlock]:
        """The blocks of one model in RAM."""
        return [block for block in self._ram.values() if block.slot.model == model]

    def remove_model(self, model: int) -> list[Slot]:
        """Takes out a model with all its slots, pinned or not; returns them. Its blocks on disk stay."""
        for block in self.blocks_of(model):
            self._forget(block)
        slots = [slot for slot in self._slots if slot.model == model]
        for slot in slots:
            self._give_back(slot)
        del self._slot_bytes[model]
        return slots

    # --- look-up ------------------------------------------------------------------------------------------

    def walk(self, keys: Sequence[bytes], most: int | None = None) -> Found:
        """The longest prefix of ``keys`` that is stored, at most ``most`` blocks."""
        ram, disk = self._ram, self._disk
        limit = len(keys) if most is None else min(most, len(keys))
        on_disk: list[bytes] = []
        for number in range(limit):
            key = keys[number]
            if key not in ram:
                if key not in disk:
                    return Found(number, tuple(on_disk))
                on_disk.append(key)
        return Found(limit, tuple(on_disk))

    def in_ram(self, key: bytes) -> RamBlock | None:
        """The block in RAM."""
        return self._ram.get(key)

    def on_disk(self, key: bytes) -> DiskBlock | None:
        """The block on disk."""
        return self._disk.get(key)

    @property
    def ram_blocks(self) -> int:
        """Blocks in RAM."""
        return len(self._ram)

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
        for key, block in self._idle.items():
            if block.spilling or (model is not None and block.slot.model != model) or block in chosen:
                continue
            if key not in self._due:
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
        known = self._ram.get(content.key)
        if known is not None:
            self._refresh(known)
            return None
        block = RamBlock(content, slot, checksum)
        self._slots[slot] = block
        self._ram[content.key] = block
        self._idle[content.key] = block
        if content.key in self._disk:
            self._touch_disk(content.key)
        elif spill:
            self._due[content.key] = block
        return block

    def pin(self, block: RamBlock) -> None:
        """Keeps the block where it is until :meth:`unpin`. Counted."""
        block.pins += 1
        if block.pins == 1:
            self._idle.pop(block.content.key, None)

    def unpin(self, block: RamBlock) -> Slot | None:
        """Ends one pin; the block is the most recently used one then. The slot, where it has become free."""
        if block.pins < 1:
            raise ValueError("the block is not pinned")
        block.pins -= 1
        if block.pins:
            return None
        if block.condemned:
            return self._free_condemned(block)
        if self._ram.get(block.content.key) is block:
            self._idle[block.content.key] = block
            self._touch_disk(block.content.key)
        return None

    def _refresh(self, block: RamBlock) -> None:
        if block.content.key in self._idle:
            self._idle.move_to_end(block.content.key)
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
        if block.held or self._ram.get(block.content.key) is not block:
            raise ValueError("a block that is pinned or gone cannot be evicted")
        self._forget(block)
        self._give_back(block.slot)
        return block.slot

    def condemn(self, key: bytes) -> Slot | None:
        """Takes a block whose payload is not what it should be out of RAM at once. Its slot, where it is free."""
        block = self._ram.get(key)
        if block is None:
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
        del self._ram[block.content.key]
        self._idle.pop(block.content.key, None)
        self._due.pop(block.content.key, None)

    # --- from RAM to disk ---------------------------------------------------------------------------------

    def next_due(self) -> RamBlock | None:
        """The next block to write: the first published, so that a block never waits for those after it."""
        for block in self._due.values():
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
        if not due and self._due.get(block.content.key) is block:
            del self._due[block.content.key]
        return self._free_condemned(block) if block.condemned else None

    def give_up_due(self) -> int:
        """Nothing is to be written for now; returns how many blocks were due."""
        count = len(self._due)
        self._due.clear()
        return count

    def is_due(self, model: int | None) -> bool:
        """Whether a block of this model, or of any, still has to be written to disk."""
        return any(model is None or block.slot.model == model for block in self._due.values())

    def unsaved(self, model: int | None) -> int:
        """Blocks in RAM, of one model or of all, that are not on disk."""
        return sum(key not in self._disk and model in (None, block.slot.model) for key, block in self._ram.items())

    def make_all_due(self) -> None:
        """Everything in RAM that is not on disk is due again, in order of use."""
        for key, block in self._ram.items():
            if key not in self._disk:
                self._due.setdefault(key, block)

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
        if self._due.get(key) is not None and not self._due[key].spilling:
            del self._due[key]

    def begin_listing(self) -> set[bytes]:
        """The folder is about to be listed; the keys of all files that are known."""
        self._gone = set()
        return set(self._disk)

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

    def remove_file(self, key: bytes, *, due: bool = False) -> DiskBlock | None:
        """A file that is gone, or is about to be. A block that is in RAM as well stays there, ``due`` to be written."""
        if self._gone is not None:
            self._gone.add(key)
        block = self._disk.pop(key, None)
        if block is not None:
            self.disk_bytes -= block.file_bytes
            if due and key in self._ram:
                self._due.setdefault(key, self._ram[key])
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
