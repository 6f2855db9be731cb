"""The store's processes together, on a real folder: what is found, what is let go of, what a fault does."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import structlog
import trio
from slots import BLOCK_TOKENS, PAYLOAD_BYTES, PlainSlots, chain_of, identity, payload_of, save

import supervisors as sup
from paddock.cache.arena import Arena
from paddock.cache.block_file import checksum_of, file_bytes
from paddock.cache.block_store import ModelHandle, PinnedPrefix, SavedBlock
from paddock.cache.client import KvStore
from paddock.cache.keys import Chain
from paddock.cache.statistics import CacheStatistics
from paddock.cache.tree import STORE_KEY, cache_spec
from paddock.errors import CacheError

FILE_BYTES = file_bytes(BLOCK_TOKENS, PAYLOAD_BYTES)


@attrs.frozen
class World:
    """A store in a node of its own, with one model."""

    node: sup.Node
    store: KvStore
    handle: ModelHandle
    slots: PlainSlots
    root: sup.Pid[Any]

    async def save(self, chain: Chain, first: int = 0, last: int | None = None) -> int:
        """Saves blocks of a chain as a model does; how many there was room for."""
        last = len(chain.keys) if last is None else last
        offsets = await self.store.reserve(self.handle, last - first)
        saved = [save(self.slots, chain.content(first + number), offset) for number, offset in enumerate(offsets)]
        self.store.publish(self.handle, saved)
        return len(saved)

    async def find(self, chain: Chain) -> PinnedPrefix:
        """The longest prefix, its payloads checked."""
        prefix = await self.store.longest_prefix(self.handle, chain.keys)
        for key, block in zip(chain.keys, prefix.blocks, strict=False):
            with self.slots.payload(block.offset) as payload:
                assert bytes(payload) == payload_of(key)
        return prefix

    async def found(self, chain: Chain) -> int:
        """How many blocks are found; they are released again."""
        prefix = await self.find(chain)
        self.store.release(prefix)
        return len(prefix.blocks)

    async def statistics(self) -> CacheStatistics:
        return await self.store.statistics()

    async def disk_is(self, state: str) -> None:
        """Waits until the disk tier has this state."""
        while (await self.statistics()).disk != state:
            await trio.lowlevel.checkpoint()

    def budgets_hold(self, statistics: CacheStatistics) -> bool:
        return (
            statistics.ram_bytes == self.slots.taken * PAYLOAD_BYTES
            and statistics.ram_bytes_max <= statistics.ram_budget_bytes
            and statistics.disk_bytes_max <= statistics.disk_budget_bytes
        )


@asynccontextmanager
async def world(
    folder: Path | None, *, ram_blocks: int = 64, disk_files: int = 1000, capacity: int = 64, model: str = "model"
) -> AsyncIterator[World]:
    async with sup.open_node() as node:
        spec = cache_spec(
            node.registry,
            ram_cache_bytes=ram_blocks * PAYLOAD_BYTES,
            disk_cache_bytes=disk_files * FILE_BYTES,
            cache_dir=folder,
        )
        root = await node.start(sup.Supervisor, sup.SupervisorFlags(), [spec], label="root")
        store = KvStore(node.registry)
        slots = PlainSlots(capacity)
        handle = await store.open_model(identity(model), slots)
        try:
            yield World(node, store, handle, slots, root)
        finally:
            with trio.CancelScope(shield=True):
                await sup.stop(root, sup.Shutdown(), timeout=20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


CHAIN = chain_of(list(range(40)), identity())
OTHER = chain_of(list(range(20)) + list(range(100, 120)), identity())


async def test_a_saved_prefix_is_found_and_shared_by_what_begins_alike() -> None:
    async with world(None) as w:
        assert await w.found(CHAIN) == 0
        assert await w.save(CHAIN) == 10
        assert await w.found(CHAIN) == 10
        prefix = await w.find(OTHER)
        assert (len(prefix.blocks), prefix.tokens, prefix.from_disk) == (5, 20, 0)
        statistics = await w.statistics()
        assert (statistics.hits, statistics.misses, statistics.reused_tokens) == (2, 1, 60)
        assert (statistics.saved_blocks, statistics.ram_blocks, statistics.disk) == (10, 10, "off")


async def test_blocks_that_are_known_are_not_kept_twice() -> None:
    async with world(None) as w:
        await w.save(CHAIN)
        await w.save(OTHER)
        statistics = await w.statistics()
        assert (statistics.saved_blocks, statistics.known_blocks, statistics.ram_blocks) == (15, 5, 15)
        assert w.budgets_hold(statistics)


async def test_a_pinned_prefix_stays_where_it_is_and_what_is_released_makes_room() -> None:
    async with world(None, ram_blocks=10) as w:
        await w.save(CHAIN)
        prefix = await w.find(CHAIN)
        assert await w.save(OTHER, 5) == 0
        assert (await w.statistics()).refused_reservations == 5
        w.store.release(prefix)
        w.store.release(prefix)
        assert await w.save(OTHER, 5) == 5
        assert await w.found(CHAIN) == 5, "of a sequence the end goes first"
        statistics = await w.statistics()
        assert (statistics.evicted_ram_blocks, statistics.lost_blocks) == (5, 5)
        assert w.budgets_hold(statistics)


async def test_an_arena_with_fewer_slots_than_the_budget_evicts_its_own_blocks() -> None:
    async with world(None, ram_blocks=64, capacity=4) as w:
        assert await w.save(CHAIN, 0, 4) == 4
        assert await w.save(OTHER, 5, 9) == 4
        assert w.slots.most_taken == 4
        assert w.budgets_hold(await w.statistics())


async def test_what_a_process_holds_is_let_go_of_when_it_ends() -> None:
    async with world(None, ram_blocks=12) as w:
        await w.save(CHAIN)

        async def holder() -> None:
            await w.find(CHAIN)
            assert len(await w.store.reserve(w.handle, 99)) == 2
            raise sup.Exit(sup.Shutdown())

        pid = w.node.spawn(holder)
        await sup.wait_down(pid)
        statistics = await w.statistics()
        assert (statistics.pinned_blocks, statistics.ram_bytes) == (0, 10 * PAYLOAD_BYTES)
        assert await w.save(OTHER, 5) == 5


async def test_a_block_that_a_worker_condemns_is_computed_and_saved_again() -> None:
    async with world(None) as w:
        await w.save(CHAIN)
        prefix = await w.find(CHAIN)
        w.store.condemn([CHAIN.keys[3]])
        assert await w.found(CHAIN) == 3
        assert w.slots.taken == 10, "the slot is pinned still"
        w.store.release(prefix)
        assert (await w.statistics()).verification_failures == 1
        assert w.slots.taken == 9
        await w.save(CHAIN)
        assert await w.found(CHAIN) == 10


async def test_a_closed_model_has_given_everything_back_and_finds_nothing() -> None:
    async with world(None) as w:
        await w.save(CHAIN)
        prefix = await w.find(CHAIN)
        await w.store.reserve(w.handle, 3)
        await w.store.close_model(w.handle)
        await w.store.close_model(w.handle)
        assert w.slots.taken == 0
        w.store.release(prefix)
        with pytest.raises(CacheError, match="closed"):
            await w.store.longest_prefix(w.handle, CHAIN.keys)
        with pytest.raises(CacheError, match="closed"):
            await w.store.reserve(w.handle, 1)
        assert (await w.statistics()).ram_bytes == 0


async def test_an_arena_whose_payloads_have_another_size_is_refused() -> None:
    async with world(None) as w:
        with pytest.raises(CacheError, match="payloads of 8192 bytes"):
            await w.store.open_model(identity(), PlainSlots(4, 8192))


# --- disk -----------------------------------------------------------------------------------------------


async def test_blocks_outlive_the_process_on_disk(folder: Path) -> None:
    async with world(folder) as w:
        await w.save(CHAIN)
        assert await w.store.flush() == 0
        statistics = await w.statistics()
        assert (statistics.spilled_blocks, statistics.disk_blocks, statistics.disk) == (10, 10, "on")
    async with world(folder) as w:
        prefix = await w.find(OTHER)
        assert (len(prefix.blocks), prefix.from_disk) == (5, 5)
        assert await w.found(CHAIN) == 10
        statistics = await w.statistics()
        assert (statistics.fetched_blocks, statistics.spilled_blocks) == (10, 0)
        await w.save(CHAIN)
        await w.store.flush()
        assert (await w.statistics()).spilled_blocks == 0, "what is on disk is not written again"
    assert os.listdir(folder / "temporary") == []


async def test_what_is_evicted_from_ram_comes_back_from_disk(folder: Path) -> None:
    async with world(folder, ram_blocks=10) as w:
        await w.save(CHAIN)
        await w.store.flush()
        await w.save(OTHER)
        await w.store.flush()
        assert await w.found(CHAIN) == 10
        assert await w.found(OTHER) == 10
        statistics = await w.statistics()
        assert statistics.lost_blocks == 0
        assert w.budgets_hold(statistics)


async def test_a_prefix_longer_than_the_ram_budget_is_found_as_far_as_it_fits(folder: Path) -> None:
    async with world(folder) as w:
        await w.save(CHAIN)
        await w.store.flush()
    async with world(folder, ram_blocks=4) as w:
        prefix = await w.find(CHAIN)
        assert len(prefix.blocks) == 4
        w.store.release(prefix)
        assert w.budgets_hold(await w.statistics())


async def test_the_disk_budget_holds_and_the_oldest_files_make_room(folder: Path) -> None:
    async with world(folder, disk_files=12) as w:
        await w.save(CHAIN)
        await w.store.flush()
        await w.save(OTHER)
        await w.store.flush()
        statistics = await w.statistics()
        assert (statistics.disk_blocks, statistics.evicted_disk_blocks) == (12, 3)
        assert w.budgets_hold(statistics)
    assert sizes_in(folder) == [FILE_BYTES] * 12


async def test_a_smaller_budget_than_last_time_is_met_at_the_start(folder: Path) -> None:
    async with world(folder) as w:
        await w.save(CHAIN)
        await w.store.flush()
    async with world(folder, disk_files=4) as w:
        while (await w.statistics()).disk_blocks != 4:
            await trio.sleep(0.001)
    assert sizes_in(folder) == [FILE_BYTES] * 4


async def test_files_of_a_time_that_is_yet_to_come_make_room_before_others(folder: Path) -> None:
    """A clock went wrong for a while; what was used then must not be kept for ever at the cost of everything else."""
    async with world(folder) as w:
        await w.save(CHAIN)
        await w.store.flush()
        used_in_the_future(folder)
        await w.save(OTHER)
        await w.store.flush()
        both = (await w.statistics()).disk_blocks
    async with world(folder, disk_files=both - len(CHAIN.keys)) as w:
        while (await w.statistics()).disk_blocks != both - len(CHAIN.keys):
            await trio.sleep(0.001)
    assert sizes_in(folder) == [FILE_BYTES] * (both - len(CHAIN.keys))
    assert max(times_in(folder)) < FUTURE


async def test_what_another_process_writes_meanwhile_is_found(folder: Path) -> None:
    async with world(folder) as reader:
        await reader.disk_is("on")
        async with world(folder) as writer:
            await writer.save(CHAIN)
            await writer.store.flush()
        assert await reader.found(CHAIN) == 10


async def test_another_identity_or_tenant_finds_nothing(folder: Path) -> None:
    async with world(folder) as w:
        await w.save(CHAIN)
        await w.store.flush()
        assert await w.found(chain_of(list(range(40)), tenant="alice")) == 0
        async with world(folder, model="other") as other:
            assert await other.found(chain_of(list(range(40)), identity("other"))) == 0


FUTURE = 4e9
"""Some time in 2096."""


def used_in_the_future(folder: Path) -> None:
    for path in folder.rglob("*.kv"):
        os.utime(path, (FUTURE, FUTURE))


def times_in(folder: Path) -> list[float]:
    return [path.stat().st_mtime for path in folder.rglob("*.kv")]


def sizes_in(folder: Path) -> list[int]:
    return [path.stat().st_size for path in folder.rglob("*.kv")]


def put_a_file(path: Path) -> None:
    path.write_text("not a folder")


def path_of(folder: Path, number: int) -> Path:
    (path,) = folder.rglob(CHAIN.keys[number].hex() + ".kv")
    return path


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, 200)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def make_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_a_link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def put_a_foreign_block(path: Path) -> None:
    shutil.copy(next(other for other in path.parents[1].rglob("*.kv") if other != path), path)


def remove(path: Path) -> None:
    path.unlink()


def put_a_file_for_the_folder(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.write_text("x")


FAULTS = [
    flip_a_bit, truncate, empty, make_a_folder, make_a_link_to_itself, put_a_foreign_block, remove,
    put_a_file_for_the_folder,
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_faulty_file_is_never_used_but_counted_and_healed_by_the_next_save(
    folder: Path, fault: Callable[[Path], None]
) -> None:
    async with world(folder) as w:
        await w.save(CHAIN)
        await w.store.flush()
    fault(path_of(folder, 6))
    async with world(folder) as w:
        await w.disk_is("on")
        assert await w.found(CHAIN) <= 6
        counted = (await w.statistics()).verification_failures
        assert counted == (
            0 if fault in (remove, put_a_file_for_the_folder, make_a_folder, make_a_link_to_itself) else 1
        )
        await w.save(CHAIN)
        assert await w.store.flush() == 0
        assert await w.found(CHAIN) == 10
    async with world(folder) as w:
        assert await w.found(CHAIN) == 10


async def test_a_folder_that_cannot_be_used_costs_one_warning_and_nothing_else(folder: Path) -> None:
    put_a_file(folder)
    with structlog.testing.capture_logs() as logs:
        async with world(folder) as w:
            await w.disk_is("failed")
            await w.save(CHAIN)
            assert await w.store.flush() == 10
            assert await w.found(CHAIN) == 10
            statistics = await w.statistics()
            assert (statistics.disk_errors, statistics.due_blocks) == (1, 0)
            assert statistics.disk_problem
    (warning,) = [line for line in logs if line["log_level"] == "warning"]
    assert warning["path"] == str(folder)


async def test_a_folder_that_is_deleted_while_running_is_used_again_when_it_can_be(
    folder: Path, mock_clock: trio.testing.MockClock
) -> None:
    with structlog.testing.capture_logs() as logs:
        async with world(folder) as w:
            await w.save(CHAIN, 0, 3)
            await w.store.flush()
            os.rename(folder, folder.with_name("gone"))  # at once, where rm would race with the writer
            await w.save(CHAIN, 3)
            assert await w.store.flush() >= 7
            assert await w.found(CHAIN) == 10
            statistics = await w.statistics()
            assert (statistics.disk, statistics.disk_errors) == ("failed", 1)
            mock_clock.jump(10)
            await w.disk_is("on")
            assert await w.store.flush() == 0
    assert [line["log_level"] for line in logs] == ["warning", "info"]
    async with world(folder) as w:
        assert await w.found(CHAIN) == 10


async def test_a_folder_that_can_only_be_read_is_read(folder: Path) -> None:
    async with world(folder) as w:
        await w.save(CHAIN)
        await w.store.flush()
    os.rmdir(folder / "temporary")
    put_a_file(folder / "temporary")  # whoever is root may write wherever there is a folder
    with structlog.testing.capture_logs() as logs:
        async with world(folder) as w:
            assert await w.found(CHAIN) == 10
            await w.save(OTHER)
            assert await w.store.flush() == 5
            statistics = await w.statistics()
            assert (statistics.disk, statistics.spilled_blocks, statistics.disk_blocks) == ("read-only", 0, 10)
    assert [line["log_level"] for line in logs] == ["warning"]


async def test_a_disk_that_is_full_ends_writing_and_not_serving(
    folder: Path, monkeypatch: pytest.MonkeyPatch, mock_clock: trio.testing.MockClock
) -> None:
    """Temporary files lead to ``/dev/full``, a device that is full."""
    real = os.open

    def opened(path: Any, flags: int, mode: int = 0o777) -> int:
        descriptor = real(path, flags, mode)
        if str(path).endswith(".tmp"):
            os.close(descriptor)
            return real("/dev/full", os.O_WRONLY)
        return descriptor

    with structlog.testing.capture_logs() as logs:
        async with world(folder) as w:
            await w.save(CHAIN, 0, 3)
            await w.store.flush()
            with monkeypatch.context() as patch:
                patch.setattr(os, "open", opened)
                await w.save(CHAIN, 3)
                assert await w.store.flush() == 7
                assert await w.found(CHAIN) == 10
                statistics = await w.statistics()
                assert (statistics.disk, statistics.disk_problem) == ("failed", "No space left on device")
                assert (statistics.disk_errors, statistics.disk_bytes) == (1, 3 * FILE_BYTES)
            mock_clock.jump(10)
            await w.disk_is("on")
            assert await w.store.flush() == 0
    assert [line["log_level"] for line in logs] == ["warning", "info"]


async def test_blocks_go_to_disk_and_back_through_the_arena_that_workers_map(folder: Path) -> None:
    async with world(folder) as w:
        for round_ in range(2):
            arena = Arena(40 * PAYLOAD_BYTES)
            arena.shape(PAYLOAD_BYTES)
            handle = await w.store.open_model(identity("arena"), arena)
            chain = chain_of(list(range(40)), identity("arena"))
            if round_ == 0:
                offsets = await w.store.reserve(handle, 10)
                for offset, key in zip(offsets, chain.keys, strict=True):
                    arena.write(offset, memoryview(payload_of(key)))
                checksums = [checksum_of(payload_of(key)) for key in chain.keys]
                saved = [SavedBlock(chain.content(n), offsets[n], checksums[n]) for n in range(10)]
                w.store.publish(handle, saved)
                assert await w.store.flush() == 0
            prefix = await w.store.longest_prefix(handle, chain.keys)
            assert (len(prefix.blocks), prefix.from_disk) == (10, 10 * round_)
            for block, key in zip(prefix.blocks, chain.keys, strict=True):
                with arena.payload(block.offset) as payload:
                    assert bytes(payload) == payload_of(key)
                    assert block.checksum == checksum_of(payload)
            await w.store.close_model(handle)
            assert arena.taken == 0
            arena.close()


async def test_two_models_of_one_identity_share_blocks_on_disk_and_no_slots(folder: Path) -> None:
    async with world(folder) as w:
        slots = PlainSlots()
        twin = attrs.evolve(w, slots=slots, handle=await w.store.open_model(identity(), slots))
        await w.save(CHAIN)
        await w.store.flush()
        prefix = await twin.find(CHAIN)
        assert (len(prefix.blocks), prefix.from_disk) == (10, 10)
        await twin.save(OTHER)
        await w.store.flush()
        assert await w.found(OTHER) == 10
        await w.store.close_model(w.handle)
        assert (w.slots.taken, await twin.found(CHAIN)) == (0, 10)
        assert (await w.statistics()).spilled_blocks == 15


async def test_closing_a_model_waits_for_the_thread_that_reads_its_slots(folder: Path) -> None:
    async with world(folder) as w:
        await w.disk_is("on")
        for first in range(5):
            slots = PlainSlots()
            short = attrs.evolve(w, slots=slots, handle=await w.store.open_model(identity(f"m{first}"), slots))
            await short.save(chain_of(list(range(40)), identity(f"m{first}")))
            for _ in range(20 * first):
                await trio.lowlevel.checkpoint()
            await w.store.close_model(short.handle)
            assert slots.taken == 0
        statistics = await w.statistics()
        assert (statistics.ram_bytes, statistics.due_blocks, statistics.disk) == (0, 0, "on")
        assert statistics.verification_failures == 0


async def test_budgets_hold_under_a_random_load_and_nothing_is_leaked(folder: Path) -> None:
    async with world(folder, ram_blocks=24, disk_files=12) as w:
        seed = random.Random(7)
        slots = PlainSlots(20)
        second = attrs.evolve(w, slots=slots, handle=await w.store.open_model(identity("second"), slots))

        async def conversation(number: int) -> None:
            mine, name = (w, "model") if number % 2 else (second, "second")
            for _ in range(12):
                tokens = list(range(8)) + [seed.randrange(3) for _ in range(4 * seed.randrange(1, 10))]
                chain = chain_of(tokens, identity(name))
                prefix = await mine.find(chain)
                await mine.save(chain, len(prefix.blocks))
                if seed.random() < 0.3:
                    await mine.store.flush()
                if seed.random() < 0.1:
                    mine.store.condemn([seed.choice(chain.keys)])
                if seed.random() < 0.8:
                    mine.store.release(prefix)
                statistics = await w.statistics()
                assert statistics.ram_bytes_max <= statistics.ram_budget_bytes
                assert statistics.disk_bytes_max <= statistics.disk_budget_bytes

        pids = [w.node.spawn(conversation, number) for number in range(8)]
        for pid in pids:
            assert await sup.wait_down(pid) == sup.Normal()
        assert (await w.statistics()).pinned_blocks == 0
        await w.store.flush()
        statistics = await w.statistics()
        assert statistics.evicted_ram_blocks
        assert statistics.evicted_disk_blocks
        assert statistics.ram_bytes == statistics.ram_blocks * PAYLOAD_BYTES
        assert statistics.ram_bytes == (w.slots.taken + slots.taken) * PAYLOAD_BYTES
        assert sizes_in(folder) == [FILE_BYTES] * statistics.disk_blocks


# --- crashes of the store's own processes ------------------------------------------------------------------


async def child(w: World, name: str) -> sup.Pid[Any]:
    (cache,) = await sup.which_children(w.root)
    assert isinstance(cache.pid, sup.Pid)
    found = await sup.which_child(cache.pid, name)
    assert isinstance(found.pid, sup.Pid)
    return found.pid


@pytest.mark.parametrize("name", ["store", "writer", "reader"])
async def test_a_crash_of_one_of_the_processes_loses_no_block_and_leaks_no_slot(folder: Path, name: str) -> None:
    async with world(folder) as w:
        await w.save(CHAIN)
        reached = trio.Event()

        async def holder() -> None:
            await w.find(CHAIN)
            reached.set()
            await trio.sleep_forever()

        pid = w.node.spawn(holder)
        await reached.wait()
        old = await child(w, name)
        sup.exit(old, sup.Killed())
        await sup.wait_down(old)
        while (await child_or_none(w, name)) in (None, old):
            await trio.sleep(0.001)
        assert (await w.statistics()).pinned_blocks == 10
        assert await w.found(CHAIN) == 10
        assert await w.store.flush() == 0
        sup.exit(pid, sup.Killed())
        await sup.wait_down(pid)
        statistics = await w.statistics()
        assert (statistics.pinned_blocks, statistics.ram_blocks, statistics.disk_blocks) == (0, 10, 10)
        assert w.budgets_hold(statistics)


async def child_or_none(w: World, name: str) -> sup.Pid[Any] | None:
    try:
        return await child(w, name)
    except AssertionError:
        return None


async def test_while_the_store_is_away_callers_hear_a_typed_error() -> None:
    async with sup.open_node() as node:
        with pytest.raises(CacheError, match="does not answer"):
            await KvStore(node.registry).statistics()
        assert node.registry.whereis(STORE_KEY) is None
