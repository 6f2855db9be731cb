"""The index against a simple model: budgets hold at every moment, pins hold, nothing is lost but by eviction."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from slots import chain_of

from paddock.cache.blocks import DiskBlock, RamBlock, Slot
from paddock.cache.index import BlockIndex

CHAIN = chain_of(list(range(100)))
CONTENTS = [CHAIN.content(number) for number in range(20)]
FILE = DiskBlock("identity", 7)


class IndexMachine(RuleBasedStateMachine):
    """Two models with slots of 3 and 5 bytes under a budget of 23, and files of 7 bytes under one of 30."""

    def __init__(self) -> None:
        super().__init__()
        self.index = BlockIndex(23, 30)
        self.index.add_model(1, 3)
        self.index.add_model(2, 5)
        self.next_offset = 0
        self.reserved: list[Slot] = []
        self.ram: dict[tuple[int, bytes], RamBlock] = {}
        self.pins: dict[RamBlock, int] = {}
        self.disk: set[bytes] = set()
        self.condemned: set[RamBlock] = set()
        self.writing: dict[RamBlock, bool] = {}
        self.freed: set[Slot] = set()

    def free(self, slot: Slot | None) -> None:
        if slot is not None:
            assert slot not in self.freed, "a slot is free once"
            self.freed.add(slot)

    @rule(model=st.sampled_from([1, 2]), arena_full=st.booleans())
    def reserve(self, model: int, arena_full: bool) -> None:
        victims = self.index.room_in_ram(model, arena_full=arena_full)
        if victims is None:
            return
        if arena_full:
            assert any(victim.slot.model == model for victim in victims)
        for victim in victims:
            assert victim not in self.pins, "a pinned block is never evicted"
            assert victim not in self.writing
            del self.ram[victim.slot.model, victim.content.key]
            self.free(self.index.evict(victim))
        self.next_offset += 1
        slot = Slot(model, self.next_offset)
        self.index.take_slot(slot)
        self.reserved.append(slot)

    @precondition(lambda self: self.reserved)
    @rule(number=st.integers(0, 19), spill=st.booleans(), data=st.data())
    def publish(self, number: int, spill: bool, data: st.DataObject) -> None:
        slot = self.reserved.pop(data.draw(st.integers(0, len(self.reserved) - 1)))
        key = (slot.model, CONTENTS[number].key)
        block = self.index.publish(CONTENTS[number], slot, b"c", spill=spill)
        if key in self.ram:
            assert block is None
            self.index.give_back_slot(slot)
            self.free(slot)
        else:
            assert block is not None
            self.ram[key] = block

    @precondition(lambda self: self.reserved)
    @rule()
    def give_back(self) -> None:
        slot = self.reserved.pop()
        self.index.give_back_slot(slot)
        self.free(slot)

    @precondition(lambda self: self.ram)
    @rule(data=st.data())
    def pin(self, data: st.DataObject) -> None:
        block = self.ram[data.draw(st.sampled_from(sorted(self.ram)))]
        self.index.pin(block)
        self.pins[block] = self.pins.get(block, 0) + 1

    @precondition(lambda self: self.pins)
    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        block = list(self.pins)[data.draw(st.integers(0, len(self.pins) - 1))]
        self.pins[block] -= 1
        if not self.pins[block]:
            del self.pins[block]
        self.free(self.index.unpin(block))

    @precondition(lambda self: self.ram)
    @rule(data=st.data())
    def condemn(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.ram)))
        block = self.ram.pop(key)
        slot = self.index.condemn(block)
        self.free(slot)
        assert (slot is None) == (block in self.pins or block in self.writing)

    @rule()
    def begin_spill(self) -> None:
        block = self.index.next_due()
        if block is None:
            return
        assert block in self.ram.values()
        victims = self.index.room_on_disk(FILE.file_bytes)
        assert victims is not None
        for victim in victims:
            self.disk.remove(victim)
            assert self.index.remove_file(victim) is FILE
        self.index.take_disk_bytes(FILE.file_bytes)
        self.index.begin_spill(block)
        self.writing[block] = True

    @precondition(lambda self: self.writing)
    @rule(succeeds=st.booleans())
    def end_spill(self, succeeds: bool) -> None:
        block, _ = self.writing.popitem()
        if succeeds:
            self.index.add_file(block.content.key, FILE, counted=True)
            assert block.content.key in {key for key, _ in self.index.files()}
            self.disk.add(block.content.key)
        else:
            self.index.give_back_disk_bytes(FILE.file_bytes)
        self.free(self.index.end_spill(block))

    @rule(number=st.integers(0, 19))
    def lose_file(self, number: int) -> None:
        self.disk.discard(CONTENTS[number].key)
        self.index.remove_file(CONTENTS[number].key)

    @rule(model=st.sampled_from([1, 2]), most=st.integers(0, 20))
    def walk(self, model: int, most: int) -> None:
        found = self.index.walk(model, CHAIN.keys, most)
        mine = {key for number, key in self.ram if number == model}
        expected = 0
        while expected < most and CHAIN.keys[expected] in mine | self.disk:
            expected += 1
        assert found.blocks == expected
        assert set(found.disk) == set(CHAIN.keys[:expected]) - mine

    @rule(model=st.sampled_from([1, 2]))
    def close_and_open_a_model(self, model: int) -> None:
        if any(block.slot.model == model for block in self.writing):
            return
        slots = self.index.remove_model(model)
        for slot in slots:
            self.free(slot)
        assert not any(slot.model == model for slot in self.reserved if slot not in slots)
        self.reserved = [slot for slot in self.reserved if slot.model != model]
        self.ram = {key: block for key, block in self.ram.items() if block.slot.model != model}
        self.pins = {block: count for block, count in self.pins.items() if block.slot.model != model}
        self.index.add_model(model, {1: 3, 2: 5}[model])

    @invariant()
    def budgets_hold(self) -> None:
        assert 0 <= self.index.ram_bytes <= self.index.most_ram_bytes <= 23
        assert 0 <= self.index.disk_bytes <= self.index.most_disk_bytes <= 30

    @invariant()
    def what_is_counted_is_what_is_there(self) -> None:
        held = {block.slot for block in self.ram.values()} | set(self.reserved)
        held |= {block.slot for block in [*self.pins, *self.writing] if block.condemned}
        assert self.index.ram_bytes == sum({1: 3, 2: 5}[slot.model] for slot in held)
        assert self.index.disk_bytes == 7 * (len(self.disk) + len(self.writing))

    @invariant()
    def nothing_published_is_lost(self) -> None:
        for (model, key), block in self.ram.items():
            assert self.index.in_ram(model, key) is block
        assert self.index.ram_blocks == len(self.ram)
        assert {key for key, _ in self.index.files()} == self.disk


IndexMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestIndexMachine = IndexMachine.TestCase


def filled(blocks: int, *, spill: bool = False) -> BlockIndex:
    index = BlockIndex(blocks, 1000)
    index.add_model(1, 1)
    for number in range(blocks):
        index.take_slot(Slot(1, number))
        index.publish(CONTENTS[number], Slot(1, number), b"c", spill=spill)
    return index


def victim_of(index: BlockIndex) -> int:
    (victim,) = index.room_in_ram(1, arena_full=False) or []
    return CONTENTS.index(victim.content)


def test_the_least_recently_used_block_goes_first() -> None:
    index = filled(4)
    for number in (0, 1):
        block = index.in_ram(1, CONTENTS[number].key)
        assert block is not None
        index.pin(block)
        index.unpin(block)
    assert victim_of(index) == 2


def test_a_block_that_is_on_disk_goes_before_an_older_one_that_would_be_lost() -> None:
    index = filled(4, spill=True)
    index.add_file(CONTENTS[2].key, FILE)
    assert victim_of(index) == 2


def test_where_all_would_be_lost_the_oldest_goes() -> None:
    assert victim_of(filled(4, spill=True)) == 0


def test_a_block_larger_than_the_budget_is_refused_and_evicts_nothing() -> None:
    index = BlockIndex(10, 10)
    index.add_model(1, 11)
    assert index.room_in_ram(1, arena_full=False) is None
    assert index.room_on_disk(11) is None


def test_files_of_a_scan_are_older_than_what_is_known_and_newest_first() -> None:
    index = BlockIndex(0, 7 * 3)
    index.add_file(CONTENTS[0].key, FILE)
    index.add_older_files([(CONTENTS[1].key, FILE), (CONTENTS[2].key, FILE), (CONTENTS[0].key, FILE)])
    assert [key for key, _ in index.files()] == [CONTENTS[2].key, CONTENTS[1].key, CONTENTS[0].key]
    assert index.room_on_disk(7) == [CONTENTS[2].key]


def test_files_beyond_the_budget_that_others_wrote_are_named() -> None:
    index = BlockIndex(0, 15)
    for number in range(3):
        index.add_file(CONTENTS[number].key, FILE)
    assert index.excess_files() == [CONTENTS[0].key]


def test_use_of_a_block_on_disk_is_remembered_once_for_its_file_s_time() -> None:
    index = filled(2)
    for number in (0, 1):
        index.add_file(CONTENTS[number].key, FILE)
    block = index.in_ram(1, CONTENTS[0].key)
    assert block is not None
    index.pin(block)
    index.unpin(block)
    assert index.take_touched(10) == [(CONTENTS[0].key, FILE)]
    assert index.take_touched(10) == []


def test_a_budget_cannot_be_overdrawn() -> None:
    index = filled(2)
    with pytest.raises(ValueError, match="budget"):
        index.take_slot(Slot(1, 9))
