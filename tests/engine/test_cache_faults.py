"""What is wrong with the cache costs time and nothing else: no error, no other byte, nothing that stays held."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import trio
from caching import BLOCK, WILD, Cached, arenas, cached, request, tokens_of

import paddock
import supervisors as sup
from paddock.cache.arena import Arena
from paddock.cache.client import KvStore
from paddock.cache.tree import STORE_KEY
from paddock.engine.caching.prefix import chain_of

__all__ = ["arenas"]  # a fixture

PROMPT = tokens_of(1, 400)
BLOCKS = len(PROMPT) // BLOCK
SLOT_BYTES = BLOCK * 4 * 2 * 128 * 2
"""Of the tiny models: 4 layers, K and V, 2 heads of 64 values in F16."""


async def expected_of(path: Path, prompt: list[int] = PROMPT, **options: Any) -> paddock.Completion:
    async with cached(path, prefix_cache=False, **options) as cache:
        return await cache.complete(prompt, **WILD)


async def held_by_nobody(cache: Cached) -> None:
    """Every slot that is taken holds a block, and none is pinned."""
    statistics = await cache.settled()
    with trio.fail_after(10):
        while statistics.pinned_blocks:
            await trio.sleep(0.002)
            statistics = await cache.statistics()
    assert statistics.ram_bytes == statistics.ram_blocks * SLOT_BYTES


def store_of(cache: Cached) -> KvStore:
    return KvStore(cache.runtime._node.registry)


def damage_every_second_file(folder: Path) -> int:
    """Flips a bit in the middle; how many files there are."""
    files = sorted(folder.rglob("*.kv"))
    for path in files[::2]:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    return len(files)


# --- damage ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isolation", ["process", "thread"])
@pytest.mark.parametrize("damaged", [0, 3])
async def test_a_damaged_slot_is_computed_again_and_healed_by_the_next_save(
    tiny_model_path: Path, arenas: list[Arena], isolation: str, damaged: int
) -> None:
    expected = await expected_of(tiny_model_path)
    del arenas[:]
    async with cached(tiny_model_path, isolation=isolation) as cache:
        await cache.complete(PROMPT)
        await cache.settled()
        (arena,) = arenas
        offset = sorted(arena._taken)[damaged]
        with arena.payload(offset) as payload:
            payload[1000] ^= 1
        again = await cache.complete(PROMPT, **WILD)
        assert again == expected
        assert again.usage.cached_tokens == damaged * BLOCK
        await cache.settled()
        assert (await cache.model.statistics()).corrupt_blocks == 1
        assert (await cache.statistics()).verification_failures == 1
        healed = await cache.complete(PROMPT, **WILD)
        assert healed == expected
        assert healed.usage.cached_tokens == BLOCKS * BLOCK
        await held_by_nobody(cache)


async def test_all_slots_damaged_is_a_cold_start(tiny_model_path: Path, arenas: list[Arena]) -> None:
    expected = await expected_of(tiny_model_path)
    del arenas[:]
    async with cached(tiny_model_path) as cache:
        await cache.complete(PROMPT)
        await cache.settled()
        for offset in arenas[0]._taken:
            with arenas[0].payload(offset) as payload:
                payload[:] = bytes(len(payload))
        again = await cache.complete(PROMPT, **WILD)
        assert again == expected
        assert again.usage.cached_tokens == 0
        await held_by_nobody(cache)


async def test_a_damaged_file_is_computed_again_and_healed_by_the_next_save(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    expected = await expected_of(tiny_model_path)
    async with cached(tiny_model_path, tmp_path) as cache:
        await cache.complete(PROMPT)
        await cache.settled()
    assert damage_every_second_file(tmp_path) == BLOCKS
    async with cached(tiny_model_path, tmp_path) as cache:
        again = await cache.complete(PROMPT, **WILD)
        assert again == expected
        assert again.usage.cached_tokens < BLOCKS * BLOCK
        assert (await cache.settled()).verification_failures >= 1
    async with cached(tiny_model_path, tmp_path) as cache:
        while (healed := await cache.complete(PROMPT, **WILD)).usage.cached_tokens < BLOCKS * BLOCK:
            assert healed == expected
            await cache.settled()
        assert healed == expected


# --- deaths ---------------------------------------------------------------------------------------------


async def test_blocks_in_ram_survive_the_worker(tiny_model_path: Path) -> None:
    expected = await expected_of(tiny_model_path)
    async with cached(tiny_model_path, isolation="process") as cache:
        await cache.complete(PROMPT)
        await cache.settled()
        pid = (await cache.model.statistics()).worker_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with trio.fail_after(30):
            while (await cache.model.statistics()).worker_starts < 2:
                await trio.sleep(0.005)
        again = await cache.complete(PROMPT, **WILD)
        assert again == expected
        assert again.usage.cached_tokens == BLOCKS * BLOCK
        await held_by_nobody(cache)


async def test_what_a_worker_leaves_behind_when_it_dies_while_saving_and_restoring_comes_back(
    tiny_model_path: Path,
) -> None:
    rng, deaths = random.Random(3), 0
    prompts = [PROMPT + tokens_of(number, 200) for number in range(6)]
    async with cached(tiny_model_path, isolation="process", n_seq_max=4, restart_period=0.1) as cache:
        for _ in range(4):
            async with trio.open_nursery() as nursery:
                for prompt in prompts:
                    nursery.start_soon(cache.complete, prompt)
                await trio.sleep(rng.random() * 0.5)
                pid = (await cache.model.statistics()).worker_pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
                deaths += 1
            with trio.fail_after(30):
                while (await cache.model.statistics()).worker_deaths < deaths:
                    await trio.sleep(0.002)
                await cache.model.wait_serving()
        await held_by_nobody(cache)
        last = await cache.complete(prompts[0], **WILD)
        assert last == await expected_of(tiny_model_path, prompts[0], n_seq_max=4)


@pytest.mark.parametrize("process", ["batch", "arena", "machine"])
async def test_a_process_of_the_model_that_crashes_leaves_nothing_held(tiny_model_path: Path, process: str) -> None:
    async with cached(tiny_model_path) as cache:
        first = await cache.complete(PROMPT, **WILD)
        await cache.settled()
        child = await sup.which_child(cache.model.supervisor, process)
        assert isinstance(child.pid, sup.Pid)
        sup.exit(child.pid, sup.Killed())
        await sup.wait_down(child.pid)
        again = None
        with trio.fail_after(30):
            while again is None:
                try:
                    again = await cache.complete(PROMPT, **WILD)
                except paddock.PaddockError:
                    await cache.model.wait_serving()  # its supervisor had not noticed yet
        assert again == first
        if process != "arena":
            assert again.usage.cached_tokens == BLOCKS * BLOCK
        await cache.settled()
        assert (await cache.complete(PROMPT, **WILD)).usage.cached_tokens == BLOCKS * BLOCK
        await held_by_nobody(cache)


@pytest.mark.parametrize("process", ["store", "writer", "reader"])
async def test_serving_goes_on_while_a_process_of_the_store_is_started_again(
    tiny_model_path: Path, tmp_path: Path, process: str
) -> None:
    async with cached(tiny_model_path, tmp_path) as cache:
        first = await cache.complete(PROMPT, **WILD)
        await cache.settled()
        (branch,) = [child for child in await sup.which_children(cache.runtime._root) if child.id == "cache"]
        assert isinstance(branch.pid, sup.Pid)
        for _ in range(3):
            child = await sup.which_child(branch.pid, process)
            if isinstance(child.pid, sup.Pid):
                sup.exit(child.pid, sup.Killed())
            assert await cache.complete(PROMPT, **WILD) == first
        with trio.fail_after(10):
            while (await cache.complete(PROMPT, **WILD)).usage.cached_tokens < BLOCKS * BLOCK:
                await trio.sleep(0.01)
        await held_by_nobody(cache)


async def test_a_store_that_does_not_answer_costs_a_bounded_wait(
    tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paddock.engine.caching.restores.look_up_seconds", lambda tokens: 0.05)
    async with cached(tiny_model_path) as cache:
        first = await cache.complete(PROMPT, **WILD)
        await cache.settled()
        store = cache.runtime._node.registry.whereis(STORE_KEY)
        assert store is not None
        await sup.suspend(store)
        slow = await cache.complete(PROMPT, **WILD)
        assert slow == first
        assert slow.usage.cached_tokens == 0
        await sup.resume(store)
        await held_by_nobody(cache)
        assert (await cache.complete(PROMPT, **WILD)).usage.cached_tokens == BLOCKS * BLOCK


async def test_a_worker_that_never_answers_a_restore_costs_a_bounded_wait(
    tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cached(tiny_model_path) as cache:
        first = await cache.complete(PROMPT, **WILD)
        await cache.settled()
        with monkeypatch.context() as patched:
            patched.setattr("paddock.engine.caching.restores.RESTORE_SECONDS", 0.1)
            patched.setattr("paddock.engine.worker.state_worker.StateWorker.restore", lambda *_: None)
            async with trio.open_nursery() as nursery:
                for _ in range(2):  # the second waits behind the first

                    async def attempt() -> None:
                        slow = await cache.complete(PROMPT, **WILD)
                        assert slow == first
                        assert slow.usage.cached_tokens == 0

                    nursery.start_soon(attempt)
        assert (await cache.model.statistics()).failed_restores == 2
        await held_by_nobody(cache)
        assert (await cache.complete(PROMPT, **WILD)).usage.cached_tokens == BLOCKS * BLOCK


async def test_a_worker_that_answers_no_save_costs_a_bounded_wait(
    tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paddock.engine.caching.saves.SAVE_SECONDS", 0.1)
    monkeypatch.setattr("paddock.engine.worker.state_worker.StateWorker.save_from", lambda *_: None)
    async with cached(tiny_model_path, n_seq_max=2) as cache:
        with trio.fail_after(30):
            for number in range(12):
                assert (await cache.complete(tokens_of(number, 100))).usage.completion_tokens == 12
        statistics = await cache.model.statistics()
        assert (statistics.completed, statistics.sequences_free, statistics.saves) == (12, 2, 0)


# --- room -----------------------------------------------------------------------------------------------


async def test_budgets_hold_while_prompts_push_each_other_out(tiny_model_path: Path, tmp_path: Path) -> None:
    budget = 10 * SLOT_BYTES
    async with cached(tiny_model_path, tmp_path, ram=budget) as cache:
        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(cache.complete, tokens_of(number, 200 + 20 * number))
        statistics = await cache.settled()
        assert 0 < statistics.ram_bytes_max <= budget
        assert statistics.evicted_ram_blocks > 0
        await held_by_nobody(cache)


async def test_a_tenth_request_works_cold_while_the_tier_is_full_of_pinned_blocks(tiny_model_path: Path) -> None:
    other = tokens_of(2, 300)
    expected = await expected_of(tiny_model_path, other)
    async with cached(tiny_model_path, ram=BLOCKS * SLOT_BYTES) as cache:
        await cache.complete(PROMPT, max_tokens=1)
        await cache.settled()
        served = cache.model._served.cache
        assert served is not None
        keys = chain_of(served.rules, PROMPT).keys
        prefixes = [await store_of(cache).longest_prefix(served.handle, keys) for _ in range(9)]
        assert [prefix.tokens for prefix in prefixes] == [BLOCKS * BLOCK] * 9
        tenth = await cache.complete(other, **WILD)
        assert tenth == expected
        assert (await cache.model.statistics()).refused_blocks > 0
        pinned = await cache.complete(PROMPT, **WILD)
        assert pinned.usage.cached_tokens == BLOCKS * BLOCK
        for prefix in prefixes:
            store_of(cache).release(prefix)
        await cache.complete(other)
        await cache.settled()
        assert (await cache.complete(other)).usage.cached_tokens > 0
        await held_by_nobody(cache)


async def test_a_budget_below_one_block_serves_without_a_cache(tiny_model_path: Path) -> None:
    async with cached(tiny_model_path, ram=4096) as cache:
        for _ in range(2):
            assert (await cache.complete(PROMPT)).usage.cached_tokens == 0


# --- ends -----------------------------------------------------------------------------------------------


async def test_requests_cancelled_at_any_moment_leave_nothing_held(tiny_model_path: Path) -> None:
    rng = random.Random(5)
    expected = await expected_of(tiny_model_path, n_seq_max=3)
    async with cached(tiny_model_path, n_seq_max=3) as cache:
        await cache.complete(PROMPT)
        await cache.settled()

        async def attempt(number: int) -> None:
            await trio.sleep(rng.random() * 0.3)
            with trio.move_on_after(rng.random() * 0.15):
                await cache.complete(PROMPT[: rng.randrange(60, 400)] + tokens_of(number, 50), max_tokens=80)

        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(attempt, number)
        await held_by_nobody(cache)
        assert await cache.complete(PROMPT, **WILD) == expected
        statistics = await cache.model.statistics()
        assert statistics.sequences_free == 3
        assert statistics.failed == 0


@pytest.mark.parametrize("end", ["cancelled", "closed"])
async def test_what_a_reply_had_computed_when_it_ended_is_there_for_the_next_start(
    tiny_model_path: Path, tmp_path: Path, end: str
) -> None:
    prompt = PROMPT[:100]
    arguments = request(prompt, max_tokens=600, temperature=0.0)
    reply: list[int] = []
    async with trio.open_nursery() as nursery, cached(tiny_model_path, tmp_path, save_every=0) as cache:

        async def read(seen: trio.Event) -> None:
            try:
                async with cache.model.stream(**arguments) as stream:
                    async for delta in stream:
                        reply.extend(delta.token_ids)
                        if len(reply) >= 100:
                            seen.set()
                            if end == "cancelled":
                                return
            except paddock.RequestCancelled:
                pass

        seen = trio.Event()
        nursery.start_soon(read, seen)
        await seen.wait()
        if end == "cancelled":
            await cache.settled()
    flags = bytes(len(prompt)) + b"\1" * 90
    async with cached(tiny_model_path, tmp_path) as cache:
        again = cache.model._request(
            prompt + reply[:90],
            {"max_tokens": 10, "temperature": 0.0, "ignore_eos": True},
            streaming=False,
            generated=flags,
        )
        async with again:
            completion = await again.result()
        assert completion.usage.cached_tokens == (len(prompt) + 89) // BLOCK * BLOCK
        assert list(completion.token_ids) == reply[90:100]


async def test_many_requests_that_end_at_once_are_all_saved(tiny_model_path: Path) -> None:
    prompts = [tokens_of(number, 200) for number in range(12)]
    async with cached(tiny_model_path, save_every=0) as cache:
        async with trio.open_nursery() as nursery:
            for prompt in prompts:
                nursery.start_soon(lambda prompt=prompt: cache.complete(prompt, max_tokens=60))
        statistics = await cache.settled()
        assert statistics.ram_blocks == 12 * (259 // BLOCK)
        use = await cache.model.statistics()
        assert (use.failed_saves, use.refused_blocks) == (0, 0)
        for prompt in prompts:
            assert (await cache.complete(prompt)).usage.cached_tokens == 192
        await held_by_nobody(cache)
