"""Sequences saved in blocks by one worker and restored by another, the same for processes and threads."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import xxhash
from port_harness import Owner, Setting, load_of, opening, receive_until

import supervisors as sup
from paddock.cache.arena import Arena
from paddock.engine.worker import protocol, state_worker
from paddock.engine.worker.messages import (
    AbortDecode,
    PortUp,
    RestoreBlocksDone,
    RunRestoreBlocks,
    RunSaveBlocks,
    SaveBlocksDone,
    StartWorker,
    StepDone,
    WorkerReady,
    WorkerRefused,
)
from paddock.engine.worker.port import Port
from paddock.engine.worker.protocol import BlockRef
from paddock.engine.worker.state_worker import MAX_STATES, checksum_of
from paddock.engine.worker.transport import Isolation, open_transport
from paddock.errors import (
    CacheMemoryExhausted,
    DecodeAborted,
    InvalidBatch,
    SequenceStateError,
    WorkerBusy,
)
from paddock.native.batch import Chunk, SampleMode

BLOCK = 16
CANONICAL: dict[str, object] = {}
INVARIANT: dict[str, object] = {"flash_attention": True, "type_k": "f16", "type_v": "bf16"}
TOKENS = [300 + 7 * i % 1000 for i in range(200)]

both_isolations = pytest.mark.parametrize("isolation", ["process", "thread"])


@asynccontextmanager
async def open_port(
    isolation: Isolation,
    path: Path,
    arena: Arena | None,
    *,
    context: dict[str, object] = CANONICAL,
    block_tokens: int = BLOCK,
) -> AsyncIterator[tuple[Setting, protocol.Loaded]]:
    """A port whose worker has loaded ``path``; the arena is cut to its blocks."""
    send, receive = trio.open_memory_channel[Any](10_000)
    load = msgspec.structs.replace(load_of(path, **context), block_tokens=block_tokens)
    async with sup.open_node(label="test") as node:
        owner = await node.start(Owner, send)
        port = await node.start(Port, owner, isolation, load, arena=arena)
        setting = Setting(node, owner, port, receive)
        await setting.next(PortUp)
        sup.cast(port, StartWorker(0.0))
        loaded = (await setting.next(WorkerReady)).loaded
        if arena is not None and loaded.block_bytes:
            arena.shape(loaded.block_bytes)
        yield setting, loaded


@pytest.fixture
def arena() -> Any:
    arena = Arena(64 << 20)
    yield arena
    arena.close()


def cast_save(
    setting: Setting, slots: Sequence[int], *, sequence_id: int = 0, generation: int = 1, first: int = 0
) -> None:
    sup.cast(setting.port, RunSaveBlocks(setting.owner, 1, sequence_id, generation, first, list(slots)))


async def save(setting: Setting, arena: Arena, n_blocks: int, **options: int) -> list[BlockRef]:
    slots = [arena.allocate() for _ in range(n_blocks)]
    cast_save(setting, slots, **options)
    done = await setting.next(SaveBlocksDone)
    assert done.error is None
    assert len(done.checksums) == n_blocks
    assert 0.0 < done.decode_seconds < done.seconds
    return [BlockRef(*pair) for pair in zip(slots, done.checksums, strict=True)]


async def restore(
    setting: Setting, blocks: Sequence[BlockRef], n_tokens: int, sequence_id: int = 0, generation: int = 1
) -> RestoreBlocksDone:
    work = RunRestoreBlocks(setting.owner, 2, sequence_id, generation, list(blocks), n_tokens)
    sup.cast(setting.port, work)
    done = await setting.next(RestoreBlocksDone)
    assert isinstance(done, RestoreBlocksDone)
    return done


async def logits(setting: Setting, tokens: Sequence[int], at: int, sequence_id: int = 0) -> list[bytes | None]:
    """The logits behind ``tokens`` and behind four single ones."""
    rows: list[bytes | None] = []
    for part in (tokens, [400], [401], [402], [403]):
        done = await setting.step([Chunk(sequence_id, 1, at, list(part), SampleMode.LOGITS)])
        assert done.error is None
        rows.append(done.sampled[0].logits)
        at += len(part)
    return rows


async def prefill(setting: Setting, tokens: Sequence[int], sequence_id: int = 0) -> None:
    done = await setting.step([Chunk(sequence_id, 1, 0, list(tokens))], [opening(sequence_id)])
    assert done.error is None


@both_isolations
@pytest.mark.parametrize("settings", [CANONICAL, INVARIANT], ids=["canonical", "invariant"])
@pytest.mark.parametrize("weights", ["tiny_model_path", "tiny_k_quant_model_path"], ids=["q8_0", "q4_k_m"])
async def test_another_worker_goes_on_bit_for_bit_from_saved_blocks(
    isolation: Isolation,
    settings: dict[str, object],
    weights: str,
    arena: Arena,
    request: pytest.FixtureRequest,
) -> None:
    path = request.getfixturevalue(weights)
    async with open_port(isolation, path, arena, context=settings) as (setting, loaded):
        assert (loaded.state, loaded.state_problem) == ("blocks", "")
        assert loaded.block_bytes == BLOCK * loaded.token_bytes == BLOCK * 2048
        await prefill(setting, TOKENS[:96], sequence_id=2)
        blocks = await save(setting, arena, 6, sequence_id=2)
        expected = await logits(setting, TOKENS[96:], 96, sequence_id=2)
    async with open_port(isolation, path, arena, context=settings) as (setting, _):
        await prefill(setting, TOKENS[50:90], sequence_id=0)  # a neighbour
        for sequence_id in (3, 1):
            await setting.step([], [opening(sequence_id)])
            done = await restore(setting, blocks, 96, sequence_id)
            assert (done.n_tokens, done.bad, done.error) == (96, [], None)
            assert 0.0 < done.decode_seconds < done.seconds
            # in other chunks than before, as the schedule allows
            rest = await setting.step([Chunk(sequence_id, 1, 96, TOKENS[96:112])])
            assert rest.error is None
            assert await logits(setting, TOKENS[112:], 112, sequence_id) == expected


@both_isolations
async def test_blocks_of_a_longer_sequence_are_those_of_a_shorter_one(
    isolation: Isolation, tiny_model_path: Path, arena: Arena
) -> None:
    async with open_port(isolation, tiny_model_path, arena) as (setting, _):
        await prefill(setting, TOKENS[:50])
        first = await save(setting, arena, 3)
        await setting.step([Chunk(0, 1, 50, TOKENS[50:130])])
        whole = await save(setting, arena, 8)
        later = await save(setting, arena, 5, first=3)
        assert [block.checksum for block in whole[:3]] == [block.checksum for block in first]
        assert [block.checksum for block in whole[3:]] == [block.checksum for block in later]
        for block in whole:
            payload = bytes(arena.payload(block.offset))
            assert xxhash.xxh3_128_digest(payload) == block.checksum


@both_isolations
async def test_a_step_behind_a_save_may_release_the_sequence(
    isolation: Isolation, tiny_model_path: Path, arena: Arena
) -> None:
    async with open_port(isolation, tiny_model_path, arena) as (setting, _):
        await prefill(setting, TOKENS[:64])
        expected = await save(setting, arena, 4)
        slots = [arena.allocate() for _ in range(4)]
        cast_save(setting, slots)
        setting.cast_step([], [], [protocol.SequenceRef(0, 1)])
        setting.cast_step([Chunk(0, 1, 0, TOKENS[100:164])], [opening(0)])
        done = await setting.next(SaveBlocksDone)
        assert done.checksums == [block.checksum for block in expected]
        assert (await setting.next(StepDone)).error is None


@both_isolations
async def test_a_part_of_the_last_block_is_restored(isolation: Isolation, tiny_model_path: Path, arena: Arena) -> None:
    async with open_port(isolation, tiny_model_path, arena) as (setting, _):
        await prefill(setting, TOKENS[:64])
        blocks = await save(setting, arena, 4)
        await prefill(setting, TOKENS[:57], sequence_id=1)
        expected = await logits(setting, TOKENS[57:70], 57, sequence_id=1)
        await setting.step([], [opening(3)])
        done = await restore(setting, blocks, 57, 3)
        assert done.n_tokens == 57
        assert await logits(setting, TOKENS[57:70], 57, 3) == expected


@both_isolations
async def test_damaged_swapped_and_foreign_blocks_are_named_and_never_applied(
    isolation: Isolation, tiny_model_path: Path, arena: Arena
) -> None:
    async with open_port(isolation, tiny_model_path, arena) as (setting, loaded):
        await prefill(setting, TOKENS[:96])
        blocks = await save(setting, arena, 6)
        expected = await logits(setting, TOKENS[96:120], 96)
        await setting.step([], [opening(1)])

        async def refused(wrong: Sequence[BlockRef], bad: list[int]) -> None:
            done = await restore(setting, wrong, 96, 1)
            assert (done.n_tokens, done.bad, done.error) == (0, bad, None)
            cold = await setting.step([Chunk(1, 1, 0, TOKENS[:96])])  # the sequence is empty
            assert cold.error is None
            assert await logits(setting, TOKENS[96:120], 96, 1) == expected
            await setting.step([], [opening(1)])

        for at in (0, 1, loaded.block_bytes // 2, loaded.block_bytes - 1):
            payload = arena.payload(blocks[4].offset)
            payload[at] ^= 0x10
            await refused(blocks, [4])
            payload[at] ^= 0x10
            payload.release()
        swapped = [BlockRef(blocks[0].offset, blocks[1].checksum), BlockRef(blocks[1].offset, blocks[0].checksum)]
        await refused([*swapped, *blocks[2:]], [0, 1])
        await refused([*blocks[:5], BlockRef(blocks[5].offset, b"")], [5])
        await refused([*blocks[:5], BlockRef(1 << 40, blocks[5].checksum)], [5])
        await refused([*blocks[:5], BlockRef(-arena.slot_bytes, blocks[5].checksum)], [5])
        await refused([*blocks[:5], BlockRef(blocks[5].offset + 1, blocks[5].checksum)], [5])
        never_written = arena.allocate()
        await refused([BlockRef(never_written, blocks[0].checksum), *blocks[1:]], [0])
        arena.free(blocks[3].offset)
        await refused(blocks, [3])


@both_isolations
async def test_a_restore_that_cannot_be_is_refused_and_leaves_the_sequence_as_it_was(
    isolation: Isolation, tiny_model_path: Path, arena: Arena
) -> None:
    async with open_port(isolation, tiny_model_path, arena) as (setting, _):
        await prefill(setting, TOKENS[:96])
        blocks = await save(setting, arena, 6)
        for n_tokens in (0, -1, 80, 97, 1 << 40):
            done = await restore(setting, blocks, n_tokens, 1)
            assert isinstance(done.error, SequenceStateError)
        for sequence_id, generation in ((1, 1), (0, 2), (9, 1), (-1, 1)):  # not open, stale, none such
            done = await restore(setting, blocks, 96, sequence_id, generation)
            assert isinstance(done.error, InvalidBatch | SequenceStateError)
            assert done.n_tokens == 0
        full = await restore(setting, blocks, 96, 0)
        assert isinstance(full.error, InvalidBatch)
        going_on = await setting.step([Chunk(0, 1, 96, TOKENS[96:100])])
        assert going_on.error is None


@both_isolations
async def test_a_save_that_cannot_be_is_refused(isolation: Isolation, tiny_model_path: Path, arena: Arena) -> None:
    async with open_port(isolation, tiny_model_path, arena) as (setting, _):
        await prefill(setting, TOKENS[:40])
        slots = [arena.allocate() for _ in range(4)]

        async def refusal(slots: Sequence[int], **options: int) -> object:
            cast_save(setting, slots, **options)
            return (await setting.next(SaveBlocksDone)).error

        assert isinstance(await refusal(slots[:3]), SequenceStateError)  # the third is not full
        assert isinstance(await refusal(slots[:1], first=2), SequenceStateError)
        assert isinstance(await refusal(slots[:1], first=-1), SequenceStateError)
        assert isinstance(await refusal(slots[:1], generation=2), InvalidBatch)
        assert isinstance(await refusal(slots[:1], sequence_id=2), InvalidBatch)
        assert await refusal([1 << 40]) is not None
        assert await refusal([]) is None
        await setting.step([], [opening(1)])
        assert isinstance(await refusal(slots[:1], sequence_id=1), SequenceStateError)  # empty
        assert await refusal(slots[:2]) is None


@both_isolations
async def test_without_an_arena_or_without_blocks_nothing_is_saved(isolation: Isolation, tiny_model_path: Path) -> None:
    async with open_port(isolation, tiny_model_path, None) as (setting, loaded):
        assert loaded.state == "blocks"
        await prefill(setting, TOKENS[:40])
        cast_save(setting, [0])
        assert isinstance((await setting.next(SaveBlocksDone)).error, SequenceStateError)
        done = await restore(setting, [BlockRef(0, b"")], 16, 1)
        assert isinstance(done.error, SequenceStateError)
    async with open_port(isolation, tiny_model_path, None, block_tokens=0) as (setting, loaded):
        assert (loaded.state, loaded.block_bytes) == ("none", 0)
        cast_save(setting, [0])
        assert isinstance((await setting.next(SaveBlocksDone)).error, SequenceStateError)


@both_isolations
async def test_more_saves_than_there_is_room_for_are_told_so(
    isolation: Isolation, tiny_model_path: Path, arena: Arena
) -> None:
    async with open_port(isolation, tiny_model_path, arena) as (setting, _):
        await prefill(setting, TOKENS[:64])
        setting.cast_step([Chunk(1, 1, 0, TOKENS * 8)], [opening(1)])
        await setting.decoding()
        for _ in range(MAX_STATES + 3):
            cast_save(setting, [arena.allocate()])
        errors = [(await setting.next(SaveBlocksDone)).error for _ in range(MAX_STATES + 3)]
        assert sorted(error is None for error in errors) == [False] * 3 + [True] * MAX_STATES
        assert all(isinstance(error, WorkerBusy) for error in errors[:3])
        await save(setting, arena, 1)


@both_isolations
async def test_an_aborted_step_does_not_hinder_the_save_behind_it(
    isolation: Isolation, tiny_model_path: Path, arena: Arena
) -> None:
    async with open_port(isolation, tiny_model_path, arena) as (setting, _):
        await prefill(setting, TOKENS[:64])
        setting.cast_step([Chunk(1, 1, 0, TOKENS * 8)], [opening(1)])
        await setting.decoding()
        cast_save(setting, [arena.allocate()])
        sup.cast(setting.port, AbortDecode())
        assert isinstance((await setting.next(StepDone)).error, DecodeAborted)
        assert (await setting.next(SaveBlocksDone)).error is None


async def test_a_killed_workers_blocks_are_restored_by_the_next_one(tiny_model_path: Path, arena: Arena) -> None:
    def step(number: int, chunk: Chunk) -> protocol.Step:
        return protocol.Step(number, [], [opening(0)], [chunk])

    load = msgspec.structs.replace(load_of(tiny_model_path), block_tokens=BLOCK)
    async with open_transport("process", arena_fd=arena.fd) as transport:
        transport.send(load)
        arena.shape((await receive_until(transport, protocol.Loaded)).block_bytes)
        slots = [arena.allocate() for _ in range(10)]
        transport.send(step(1, Chunk(0, 1, 0, TOKENS[:80], SampleMode.LOGITS)))
        transport.send(protocol.SaveBlocks(2, 0, 1, 0, slots[:4]))
        stepped = await receive_until(transport, protocol.Stepped)
        saved = await receive_until(transport, protocol.BlocksSaved)
        transport.send(protocol.SaveBlocks(3, 0, 1, 0, slots[5:]))  # never answered
        assert transport.os_pid is not None
        os.kill(transport.os_pid, signal.SIGKILL)
    blocks = [BlockRef(*pair) for pair in zip(slots[:4], saved.checksums, strict=True)]
    async with open_port("process", tiny_model_path, arena) as (setting, _):
        await setting.step([], [opening(0)])
        assert (await restore(setting, blocks, 64)).error is None
        done = await setting.step([Chunk(0, 1, 64, TOKENS[64:80], SampleMode.LOGITS)])
        assert [row.logits for row in done.sampled] == [row.logits for row in stepped.sampled]


async def test_no_memory_for_a_slot_is_a_typed_error_of_the_save_alone(
    tiny_model_path: Path, arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, start: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    async with open_port("thread", tiny_model_path, arena) as (setting, _):
        await prefill(setting, TOKENS[:64])
        with monkeypatch.context() as patched:
            patched.setattr(os, "posix_fallocate", full)
            cast_save(setting, [arena.allocate()])
            assert isinstance((await setting.next(SaveBlocksDone)).error, CacheMemoryExhausted)
        await save(setting, arena, 4)


async def test_no_memory_for_a_state_is_a_typed_error_and_the_next_one_is_restored(
    tiny_model_path: Path, arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(size: int) -> object:
        raise MemoryError

    async with open_port("thread", tiny_model_path, arena) as (setting, _):
        await prefill(setting, TOKENS[:64])
        slot = arena.allocate()
        with monkeypatch.context() as patched:
            patched.setattr(state_worker, "new_bytes", exhausted)
            cast_save(setting, [slot])
            assert isinstance((await setting.next(SaveBlocksDone)).error, CacheMemoryExhausted)
            await setting.step([], [opening(1)])
            done = await restore(setting, [BlockRef(slot, b"")], 16, 1)
            assert isinstance(done.error, CacheMemoryExhausted)
        blocks = await save(setting, arena, 4)
        assert (await restore(setting, blocks, 64, 1)).n_tokens == 64


async def test_states_beside_others_are_bounded_in_bytes_and_one_alone_is_not(
    tiny_model_path: Path, arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_worker, "MAX_STATE_BYTES", 100_000)
    resume = threading.Event()

    def held_up(*arguments: object) -> None:
        resume.wait(30)

    async with open_port("thread", tiny_model_path, arena) as (setting, _):
        await prefill(setting, TOKENS[:64])  # 128 KiB
        with monkeypatch.context() as patched:
            patched.setattr(state_worker, "check_headers", held_up)
            cast_save(setting, [arena.allocate()])
            cast_save(setting, [arena.allocate()])
            refused = await setting.next(SaveBlocksDone)
            assert isinstance(refused.error, WorkerBusy)
            resume.set()
            assert (await setting.next(SaveBlocksDone)).error is None
        await save(setting, arena, 4)


async def test_steps_run_while_blocks_are_cut_and_verified(
    tiny_model_path: Path, arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    resume = threading.Event()

    def held_up(payload: Any) -> bytes:
        resume.wait(30)
        return checksum_of(payload)

    async with open_port("thread", tiny_model_path, arena) as (setting, _):
        await prefill(setting, TOKENS[:64])
        monkeypatch.setattr(state_worker, "checksum_of", held_up)
        slots = [arena.allocate() for _ in range(4)]
        cast_save(setting, slots)
        assert (await setting.step([Chunk(0, 1, 64, TOKENS[64:80])], [opening(1)])).error is None
        resume.set()
        saved = await setting.next(SaveBlocksDone)
        resume.clear()
        blocks = [BlockRef(*pair) for pair in zip(slots, saved.checksums, strict=True)]
        sup.cast(setting.port, RunRestoreBlocks(setting.owner, 2, 1, 1, blocks, 64))
        assert (await setting.step([Chunk(0, 1, 80, TOKENS[80:96])])).error is None
        resume.set()
        assert (await setting.next(RestoreBlocksDone)).n_tokens == 64


@both_isolations
async def test_a_closed_arena_stops_the_start_of_a_worker_and_is_named(
    isolation: Isolation, tiny_model_path: Path, arena: Arena
) -> None:
    arena.close()
    send, receive = trio.open_memory_channel[Any](100)
    async with sup.open_node(label="test") as node:
        owner = await node.start(Owner, send)
        port = await node.start(Port, owner, isolation, load_of(tiny_model_path), arena=arena)
        sup.cast(port, StartWorker(0.0))
        refused = await Setting(node, owner, port, receive).next(WorkerRefused)
        assert "arena has been closed" in str(refused.error)


@both_isolations
async def test_a_hundred_workers_leave_no_descriptor_and_no_mapping(isolation: Isolation, arena: Arena) -> None:
    def counts() -> tuple[int, int]:
        gc.collect()
        return len(os.listdir("/proc/self/fd")), Path("/proc/self/maps").read_text().count("paddock-kv")

    async def start_and_end() -> None:
        async with open_transport(isolation, arena_fd=arena.fd, command=["/bin/true"]) as transport:
            if isolation == "thread":
                transport.send(protocol.RestoreBlocks(1, 0, 0, [], 0))
                answer = await receive_until(transport, protocol.BlocksRestored)
                assert answer.fault is not None

    await start_and_end()
    before = counts()
    for _ in range(100):
        await start_and_end()
    assert counts() == before


async def test_a_worker_that_is_given_no_decent_numbers_says_so() -> None:
    for arguments in ([], ["x"], ["1", "y"], ["1", "2", "3"]):
        done = await trio.run_process(
            [sys.executable, "-m", "paddock.engine.worker", *arguments], capture_stderr=True, check=False
        )
        assert done.returncode == 1
        assert b"started by its model's port" in done.stderr
