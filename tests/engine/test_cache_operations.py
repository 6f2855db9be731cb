"""What an operator does to the cache while it is used: commands on its folder, unloading, other budgets."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio
from caching import BLOCK, WILD, cached, request, tokens_of

import paddock
from paddock.cache.maintenance import collect, list_files, verify

PROMPT = tokens_of(1, 400)
BLOCKS = len(PROMPT) // BLOCK
BLOCK_BYTES = BLOCK * 4 * 2 * 128 * 2


async def expected_of(path: Path, **options: object) -> paddock.Completion:
    async with cached(path, prefix_cache=False, **options) as cache:
        return await cache.complete(PROMPT, **WILD)


def bad_blocks(folder: Path) -> int:
    return sum(bad is not None for bad in verify(folder, list_files(folder)))


async def test_cleaning_up_and_verifying_the_folder_under_load_costs_blocks_and_nothing_else(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    expected = await expected_of(tiny_model_path)
    async with cached(tiny_model_path, tmp_path, ram=BLOCKS * BLOCK_BYTES) as cache, trio.open_nursery() as nursery:

        async def clean() -> None:
            for number in range(1 << 30):
                keep = None if number % 2 else 0
                await trio.to_thread.run_sync(lambda keep=keep: collect(tmp_path, max_bytes=keep))
                assert await trio.to_thread.run_sync(bad_blocks, tmp_path) == 0

        async def others(first: int) -> None:
            for number in range(first, first + 6):
                await cache.complete(tokens_of(number, 300))

        nursery.start_soon(clean)
        async with trio.open_nursery() as clients:
            clients.start_soon(others, 100)
            clients.start_soon(others, 200)
            for _ in range(6):
                assert await cache.complete(PROMPT, **WILD) == expected
        nursery.cancel_scope.cancel()
    assert bad_blocks(tmp_path) == 0


@pytest.mark.parametrize("isolation", ["process", "thread"])
async def test_a_model_that_is_unloaded_while_it_saves_and_loaded_again_serves_as_before(
    tiny_model_path: Path, tmp_path: Path, isolation: str
) -> None:
    rng = random.Random(4)
    expected = await expected_of(tiny_model_path, n_seq_max=4)
    config = paddock.RuntimeConfig(cache_dir=tmp_path, ram_cache_bytes=64 << 20)
    options = {"n_ctx": 1024, "n_seq_max": 4, "n_threads": 1, "isolation": isolation, "probe_seconds": 0.0}
    async with paddock.open_runtime(config) as runtime:
        for turn in range(4):
            model = await runtime.load_model(tiny_model_path, name="tiny", **options)
            completion = await model.complete(**request(PROMPT, **WILD))
            assert completion == expected
            assert completion.usage.cached_tokens == (BLOCKS * BLOCK if turn else 0)
            async with trio.open_nursery() as nursery:

                async def cut_off(number: int, model: paddock.Model = model) -> None:
                    with pytest.raises(paddock.PaddockError):
                        await model.complete(**request(tokens_of(number, 300), max_tokens=700))

                for number in range(4):
                    nursery.start_soon(cut_off, 10 * turn + number)
                await trio.sleep(rng.random() * 0.2)
                await runtime.unload_model("tiny", cancel=True)
            statistics = await runtime.cache_statistics()
            assert statistics is not None
            assert (statistics.ram_bytes, statistics.ram_blocks, statistics.pinned_blocks) == (0, 0, 0)
    assert bad_blocks(tmp_path) == 0


async def test_budgets_may_change_from_start_to_start(tiny_model_path: Path, tmp_path: Path) -> None:
    """A prompt is restored as far as there is room for its blocks."""
    expected = await expected_of(tiny_model_path)
    for blocks in (BLOCKS, 3, 0):
        async with cached(tiny_model_path, tmp_path, ram=blocks * BLOCK_BYTES + 100) as cache:
            for _ in range(2):
                completion = await cache.complete(PROMPT, **WILD)
                assert completion == expected
                await cache.settled()
            assert completion.usage.cached_tokens == blocks * BLOCK
            statistics = await cache.statistics()
            assert statistics.ram_bytes_max <= blocks * BLOCK_BYTES


async def test_without_a_disk_tier_there_is_no_budget_for_it(tmp_path: Path) -> None:
    for config in (
        paddock.RuntimeConfig(ram_cache_bytes=1 << 20),
        paddock.RuntimeConfig(ram_cache_bytes=1 << 20, cache_dir=tmp_path, disk_cache_bytes=0),
    ):
        async with paddock.open_runtime(config) as runtime:
            statistics = await runtime.cache_statistics()
            assert statistics is not None
            assert (statistics.disk, statistics.disk_budget_bytes) == ("off", 0)
