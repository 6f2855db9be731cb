"""The arena: slots are there before they are written, cost nothing before and after, and cannot end the process."""

from __future__ import annotations

import gc
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from paddock.cache import arena as arena_module
from paddock.cache.arena import Arena, ArenaMapping, slot_bytes_of
from paddock.errors import CacheError, CacheMemoryExhausted

PAGE = mmap.PAGESIZE
PAYLOAD = 3 * PAGE + 100
SLOT = 4 * PAGE


@pytest.fixture
def arena() -> Iterator[Arena]:
    arena = Arena(16 * SLOT)
    arena.shape(PAYLOAD)
    yield arena
    arena.close()


def memory_of(arena: Arena) -> int:
    """Bytes that the file really takes."""
    return os.fstat(arena.fd).st_blocks * 512


def fill(arena: Arena, offset: int, byte: int) -> None:
    arena.commit(offset)
    with arena.payload(offset) as payload:
        payload[:] = bytes([byte]) * PAYLOAD


def test_slots_are_whole_pages_and_the_lowest_free_one_is_given_out(arena: Arena) -> None:
    assert (arena.payload_bytes, arena.slot_bytes, arena.capacity) == (PAYLOAD, SLOT, 16)
    assert slot_bytes_of(PAGE) == PAGE
    offsets = [arena.allocate() for _ in range(5)]
    assert offsets == [0, SLOT, 2 * SLOT, 3 * SLOT, 4 * SLOT]
    assert (arena.taken, arena.bytes_taken) == (5, 5 * SLOT)
    arena.free(3 * SLOT)
    arena.free(SLOT)
    assert [arena.allocate() for _ in range(3)] == [SLOT, 3 * SLOT, 5 * SLOT]


def test_a_slot_costs_memory_from_its_commit_to_its_end(arena: Arena) -> None:
    offsets = [arena.allocate() for _ in range(16)]
    assert memory_of(arena) == 0
    arena.commit(offsets[3])
    assert memory_of(arena) == SLOT
    fill(arena, offsets[4], 7)
    assert memory_of(arena) == 2 * SLOT
    arena.free(offsets[4])
    arena.free(offsets[3])
    assert memory_of(arena) == 0
    assert arena.taken == 14


def test_a_freed_slot_shows_nothing_of_what_it_held(arena: Arena) -> None:
    offset = arena.allocate()
    fill(arena, offset, 9)
    arena.free(offset)
    assert arena.allocate() == offset
    arena.commit(offset)
    assert bytes(arena.payload(offset)) == bytes(PAYLOAD)


def test_all_slots_taken_is_a_typed_error_and_one_freed_helps(arena: Arena) -> None:
    offsets = [arena.allocate() for _ in range(16)]
    with pytest.raises(CacheMemoryExhausted):
        arena.allocate()
    arena.free(offsets[11])
    assert arena.allocate() == offsets[11]
    assert arena.statistics().most_taken == 16


def test_what_is_not_taken_cannot_be_freed(arena: Arena) -> None:
    offset = arena.allocate()
    for wrong in (SLOT, -SLOT, 1, 99 * SLOT):
        with pytest.raises(CacheError):
            arena.free(wrong)
    arena.free(offset)
    with pytest.raises(CacheError):
        arena.free(offset)


def test_a_mapping_of_the_same_file_sees_and_writes_the_same_payloads(arena: Arena) -> None:
    mapping = ArenaMapping(arena.fd)
    offset = arena.allocate()
    fill(arena, offset, 5)
    assert bytes(mapping.payload(offset, PAYLOAD)) == b"\5" * PAYLOAD
    other = arena.allocate()
    mapping.commit(other, PAYLOAD)
    mapping.payload(other, PAYLOAD)[:4] = b"abcd"
    assert bytes(arena.payload(other)[:4]) == b"abcd"
    mapping.close()
    assert bytes(arena.payload(other)[:4]) == b"abcd"


def test_a_mapping_made_before_there_were_slots_finds_them_later() -> None:
    arena = Arena(8 * SLOT)
    mapping = ArenaMapping(arena.fd)
    with pytest.raises(CacheError):
        mapping.payload(0, PAYLOAD)
    arena.shape(PAYLOAD)
    fill(arena, arena.allocate(), 3)
    assert bytes(mapping.payload(0, PAYLOAD)[:2]) == b"\3\3"
    mapping.close()
    arena.close()


@pytest.mark.parametrize(
    ("offset", "n_bytes"),
    [(-PAGE, PAYLOAD), (1, PAYLOAD), (16 * SLOT, PAYLOAD), (15 * SLOT + PAGE, PAYLOAD), (0, 0), (0, 17 * SLOT)],
)
def test_a_place_outside_of_the_file_is_an_error_and_no_signal(arena: Arena, offset: int, n_bytes: int) -> None:
    mapping = ArenaMapping(arena.fd)
    with pytest.raises(CacheError):
        mapping.payload(offset, n_bytes)
    mapping.close()


def test_another_payload_size_is_taken_only_while_all_slots_are_free(arena: Arena) -> None:
    offset = arena.allocate()
    arena.shape(PAYLOAD)
    with pytest.raises(CacheError):
        arena.shape(PAYLOAD + 1)
    arena.free(offset)
    arena.shape(PAGE)
    assert (arena.slot_bytes, arena.capacity) == (PAGE, 64)
    with pytest.raises(CacheError):
        arena.shape(0)


def test_an_arena_smaller_than_one_slot_has_none() -> None:
    arena = Arena(PAGE)
    arena.shape(PAYLOAD)
    assert arena.capacity == 0
    with pytest.raises(CacheMemoryExhausted):
        arena.allocate()
    arena.close()


def test_a_closed_arena_gives_its_memory_back_and_names_no_file(arena: Arena) -> None:
    fill(arena, arena.allocate(), 1)
    mapping = ArenaMapping(arena.fd)  # as a worker that is still there
    held = mapping.payload(0, PAYLOAD)
    assert held[0] == 1
    arena.close()
    arena.close()
    assert os.fstat(mapping._file.number).st_blocks == 0
    assert held[0] == 0
    with pytest.raises(CacheError):
        _ = arena.fd
    with pytest.raises(CacheError):
        arena.payload(0)
    del held
    mapping.close()
    with pytest.raises(CacheError):
        mapping.payload(0, PAYLOAD)


def test_no_descriptor_and_no_mapping_is_left(arena: Arena) -> None:
    def counts() -> tuple[int, int]:
        gc.collect()
        maps = Path("/proc/self/maps").read_text()
        return len(os.listdir("/proc/self/fd")), maps.count("paddock-kv")

    before = counts()
    for _ in range(100):
        other = Arena(4 * SLOT)
        other.shape(PAYLOAD)
        mapping = ArenaMapping(other.fd)
        fill(other, other.allocate(), 1)
        assert mapping.payload(0, PAYLOAD)[0] == 1
        mapping.close()
        other.close()
    abandoned = Arena(4 * SLOT)
    abandoned.shape(PAYLOAD)
    del abandoned
    assert counts() == before


# --- no room ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memfd", [True, False], ids=["memfd", "temporary-file"])
def test_a_file_that_may_not_grow_is_a_typed_error(memfd: bool, tmp_path: Path) -> None:
    """A file size limit stands for every way in which a file system has no room."""
    script = f"""
import os, resource, sys
from pathlib import Path
from paddock.cache.arena import Arena
from paddock.errors import CacheMemoryExhausted
if not {memfd}:
    del os.memfd_create
resource.setrlimit(resource.RLIMIT_FSIZE, ({SLOT} * 4, {SLOT} * 4))
big = Arena({SLOT} * 8, Path({str(tmp_path)!r}))
try:
    big.shape({PAYLOAD})
except CacheMemoryExhausted as error:
    print(type(error).__name__, error.n_bytes)
fits = Arena({SLOT} * 4, Path({str(tmp_path)!r}))
fits.shape({PAYLOAD})
fits.commit(fits.allocate())
print(os.listdir({str(tmp_path)!r}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"CacheMemoryExhausted {8 * SLOT}", "[]"]


def test_a_commit_that_the_system_refuses_is_a_typed_error(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    offset = arena.allocate()

    def full(fd: int, start: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        with pytest.raises(CacheMemoryExhausted, match="No space left") as caught:
            arena.commit(offset)
    assert caught.value.n_bytes == PAYLOAD
    arena.commit(offset)


def test_a_commit_beyond_what_the_machine_has_left_is_refused_before_it_is_tried(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(n_bytes: int) -> None:
        raise CacheMemoryExhausted(n_bytes, "3 MiB are left")

    monkeypatch.setattr(arena_module, "require_headroom", exhausted)
    with pytest.raises(CacheMemoryExhausted, match="3 MiB"):
        arena.commit(arena.allocate())
    assert memory_of(arena) == 0


def test_without_posix_fallocate_the_room_is_written(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fallocate")
    offset = arena.allocate()
    arena.commit(offset)
    assert memory_of(arena) == SLOT


def test_without_memfds_an_unlinked_file_holds_the_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    arena = Arena(4 * SLOT, tmp_path)
    arena.shape(PAYLOAD)
    assert list(tmp_path.iterdir()) == []
    offset = arena.allocate()
    fill(arena, offset, 8)
    assert bytes(arena.payload(offset)) == b"\x08" * PAYLOAD
    arena.free(offset)
    arena.close()
    with pytest.raises(CacheMemoryExhausted):
        Arena(4 * SLOT, tmp_path / "missing")


# --- any order of calls ------------------------------------------------------------------------------------


class Slots(RuleBasedStateMachine):
    """Allocations and frees in any order: no slot is given out twice, and each keeps what was written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.arena = Arena(6 * SLOT)
        self.arena.shape(PAYLOAD)
        self.held: dict[int, int] = {}
        self.next_byte = 1

    @precondition(lambda self: len(self.held) < 6)
    @rule()
    def allocate(self) -> None:
        offset = self.arena.allocate()
        assert offset == min(set(range(0, 6 * SLOT, SLOT)) - set(self.held))
        fill(self.arena, offset, self.next_byte)
        self.held[offset] = self.next_byte
        self.next_byte = self.next_byte % 255 + 1

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(sorted(self.held)))
        self.arena.free(offset)
        del self.held[offset]

    @invariant()
    def what_was_written_is_there(self) -> None:
        assert self.arena.taken == len(self.held)
        assert memory_of(self.arena) == len(self.held) * SLOT
        for offset, byte in self.held.items():
            assert bytes(self.arena.payload(offset)[:: PAYLOAD - 1]) == bytes([byte, byte])

    def teardown(self) -> None:
        self.arena.close()


Slots.TestCase.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
TestSlots = Slots.TestCase
