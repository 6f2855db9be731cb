"""A request behind a cached prefix gives the bytes of the same request without a cache, wherever the prefix lay."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from caching import BLOCK, GREEDY, WILD, Cached, cached, tokens_of
from serving import all_at_once, mixed_requests

import paddock

SHARED = tokens_of(1, 400)
RESTS = [tokens_of(2, 40), tokens_of(3, 9), tokens_of(4, 90)]
PROMPTS = [SHARED + rest for rest in RESTS]


@pytest.fixture(params=["q8_0", "q4_k_m"])
def model_path(request: pytest.FixtureRequest) -> Path:
    name = "tiny_model_path" if request.param == "q8_0" else "tiny_k_quant_model_path"
    path: Path = request.getfixturevalue(name)
    return path


async def run_all(cache: Cached, *, neighbours: int = 0) -> list[paddock.Completion]:
    """Each prompt under each sampling, one after another or beside neighbours that come and go."""
    completions: list[paddock.Completion] = []
    async with trio.open_nursery() as nursery:
        if neighbours:
            others = mixed_requests(neighbours, seed=8, longest=200)
            nursery.start_soon(lambda: all_at_once(cache.model, others, arrivals=random.Random(9)))
        for number, prompt in enumerate(PROMPTS):
            completions += [await cache.complete(prompt, **(GREEDY, WILD)[number % 2])]
        completions += [await cache.complete(PROMPTS[0], **WILD)]
    return completions


def cached_tokens(completions: Sequence[paddock.Completion]) -> list[int]:
    return [completion.usage.cached_tokens for completion in completions]


_COLD: dict[str, list[paddock.Completion]] = {}


async def cold(path: Path, **options: Any) -> list[paddock.Completion]:
    """Without a cache; what was computed once is not computed again."""
    name = f"{path} {options}"
    if name not in _COLD:
        _COLD[name] = await _compute_cold(path, options)
    return _COLD[name]


async def _compute_cold(path: Path, options: dict[str, Any]) -> list[paddock.Completion]:
    async with cached(path, prefix_cache=False, **options) as cache:
        completions = await run_all(cache)
    assert cached_tokens(completions) == [0] * len(completions)
    assert len({completion.token_ids for completion in completions}) == len(completions)
    return completions


@pytest.mark.parametrize("isolation", ["process", "thread"])
async def test_the_second_of_two_prompts_with_a_common_prefix_computes_only_the_rest(
    tiny_model_path: Path, isolation: str
) -> None:
    prefix = tokens_of(5, 2000)
    one, two = prefix + tokens_of(6, 30), prefix + tokens_of(7, 50)
    async with cached(tiny_model_path, isolation=isolation, n_ctx=2304, n_seq_max=2) as cache:
        assert (await cache.complete(one)).usage.cached_tokens == 0
        await cache.settled()
        before = await cache.model.statistics()
        warm = await cache.complete(two)
        after = await cache.model.statistics()
        whole = len(prefix) // BLOCK * BLOCK
        assert warm.usage.cached_tokens == whole
        assert after.cached_tokens - before.cached_tokens == whole
        assert after.prefill_rows - before.prefill_rows == len(two) - whole
        assert (await cache.statistics()).reused_tokens == whole
    async with cached(tiny_model_path, isolation=isolation, n_ctx=2304, n_seq_max=2, prefix_cache=False) as cache:
        assert await cache.complete(two) == warm


@pytest.mark.parametrize("neighbours", [0, 8])
async def test_from_ram_and_from_disk_alone_and_among_others_every_bit_is_that_of_a_cold_run(
    model_path: Path, tmp_path: Path, neighbours: int
) -> None:
    expected = await cold(model_path)
    async with cached(model_path, tmp_path) as cache:
        await cache.complete([*SHARED, 301])
        await cache.settled()
        from_ram = await run_all(cache, neighbours=neighbours)
        assert from_ram == expected
        assert min(cached_tokens(from_ram)) >= len(SHARED) // BLOCK * BLOCK
        await cache.settled()
    async with cached(model_path, tmp_path) as cache:
        from_disk = await run_all(cache, neighbours=neighbours)
        assert from_disk == expected
        assert min(cached_tokens(from_disk)) >= len(SHARED) // BLOCK * BLOCK
        assert (await cache.statistics()).fetched_blocks > 0


async def test_blocks_that_another_process_saved_give_every_bit_of_a_cold_run(model_path: Path, tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import paddock, trio
        async def main():
            config = paddock.RuntimeConfig(cache_dir={str(tmp_path)!r}, ram_cache_bytes=64 << 20)
            async with paddock.open_runtime(config) as runtime:
                model = await runtime.load_model({str(model_path)!r}, n_ctx=1024, n_seq_max=12, n_threads=1)
                await model.complete({SHARED!r} + [301], max_tokens=1)
        trio.run(main)
        """
    )
    await trio.run_process([sys.executable, "-c", script], stderr=subprocess.STDOUT)
    async with cached(model_path, tmp_path) as cache:
        completions = await run_all(cache)
        assert min(cached_tokens(completions)) >= len(SHARED) // BLOCK * BLOCK
    assert completions == await cold(model_path)


async def test_isolations_share_the_blocks_on_disk(tiny_model_path: Path, tmp_path: Path) -> None:
    completions: dict[str, list[paddock.Completion]] = {}
    for isolation in ("process", "thread"):
        async with cached(tiny_model_path, tmp_path, isolation=isolation) as cache:
            completions[isolation] = await run_all(cache)
            await cache.settled()
    assert completions["process"] == completions["thread"]
    assert min(cached_tokens(completions["thread"])) > 0


async def test_requests_at_once_share_a_prefix_that_is_restored_for_each(tiny_model_path: Path) -> None:
    requests = [
        {"prompt": SHARED + tokens_of(20 + n, 10 + 7 * n), "seed": n, "max_tokens": 20, "logprobs": 0}
        for n in range(10)
    ]
    async with cached(tiny_model_path, prefix_cache=False) as cache:
        expected = await all_at_once(cache.model, requests)
    async with cached(tiny_model_path) as cache:
        await cache.complete([*SHARED, 301])
        await cache.settled()
        warm = await all_at_once(cache.model, requests)
        assert warm == expected
        assert min(cached_tokens(warm)) == len(SHARED) // BLOCK * BLOCK
        statistics = await cache.settled()
        assert statistics.pinned_blocks == 0


@pytest.mark.parametrize("options", [{"exactness": "off"}, {"exactness_recipe": "invariant", "isolation": "process"}])
async def test_other_recipes_reuse_prefixes_too(tiny_model_path: Path, options: dict[str, Any]) -> None:
    async with cached(tiny_model_path, **options) as cache:
        first = await cache.complete(PROMPTS[0])
        await cache.settled()
        again = await cache.complete(PROMPTS[0])
        assert again.usage.cached_tokens == len(PROMPTS[0]) // BLOCK * BLOCK
        if "exactness_recipe" in options:
            assert again == first


async def test_a_prompt_is_not_restored_for_another_recipe_or_another_context(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    for options in ({}, {"exactness": "off"}, {"n_seq_max": 3}, {"n_ctx": 512}):
        async with cached(tiny_model_path, tmp_path, **options) as cache:
            assert (await cache.complete(PROMPTS[0])).usage.cached_tokens == 0, options
            await cache.settled()


async def test_two_models_of_one_file_each_restore_their_own_blocks_and_share_those_on_disk(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    async with cached(tiny_model_path, tmp_path) as one:
        options: dict[str, Any] = {"n_ctx": 1024, "n_seq_max": 12, "n_threads": 1, "isolation": "thread"}
        second = await one.runtime.load_model(tiny_model_path, name="second", probe_seconds=0.0, **options)
        two = Cached(one.runtime, second)
        first = await one.complete(PROMPTS[0])
        await one.settled()
        shared = await two.complete(PROMPTS[0])
        assert shared.usage.cached_tokens == len(PROMPTS[0]) // BLOCK * BLOCK
        for cache in (one, two):
            again = await cache.complete(PROMPTS[0])
            assert (again.token_ids, again.logprobs) == (first.token_ids, first.logprobs)
            assert again.usage.cached_tokens == len(PROMPTS[0]) // BLOCK * BLOCK
        assert (await one.statistics()).verification_failures == 0


async def test_a_conversation_goes_on_behind_its_own_reply(model_path: Path) -> None:
    """With flags that say which tokens were generated; the blocks of the reply are as good as those of the prompt."""
    question = tokens_of(30, 50)
    expected: list[paddock.Completion] = []
    for options in ({"prefix_cache": False}, {}):
        turns: list[paddock.Completion] = []
        async with cached(model_path, **options) as cache:
            tokens, flags = list(SHARED), bytes(len(SHARED))
            for turn in range(3):
                arguments = {"max_tokens": 90, "seed": turn, "ignore_eos": True, "logprobs": 1, **WILD}
                request = cache.model._request(tokens, arguments, streaming=False, generated=flags)
                async with request:
                    turns.append(await request.result())
                if cache.model.config.prefix_cache:
                    await cache.settled()
                    assert turns[-1].usage.cached_tokens == (len(flags) - len(question)) // BLOCK * BLOCK or turn == 0
                reply = list(turns[-1].token_ids)
                tokens = [*tokens, *reply, *question]
                flags = flags + b"\1" * len(reply) + bytes(len(question))
        expected = expected or turns
    assert turns == expected


async def test_without_a_prefix_cache_nothing_is_restored_or_saved(tiny_model_path: Path) -> None:
    for options in ({"prefix_cache": False}, {"ram": 0}):
        async with cached(tiny_model_path, **options) as cache:
            for _ in range(2):
                assert (await cache.complete(PROMPTS[0])).usage.cached_tokens == 0
            statistics = await cache.model.statistics()
            assert (statistics.restores, statistics.saves) == (0, 0)


# --- what llama-server's own tests skip, or say does not work --------------------------------------------


@asynccontextmanager
async def warmed(path: Path, **options: Any) -> AsyncIterator[Cached]:
    """A cache that holds the prompts."""
    async with cached(path, **options) as cache:
        for prompt in PROMPTS:
            await cache.complete(prompt)
        await cache.settled()
        yield cache


async def test_llama_server_case_a_cached_prompt_gives_what_an_uncached_one_gives(model_path: Path) -> None:
    expected = await cold(model_path)
    async with warmed(model_path) as cache:
        completions = await run_all(cache)
    assert completions == expected
    assert min(cached_tokens(completions)) >= len(SHARED) // BLOCK * BLOCK


async def test_llama_server_case_batch_sizes_change_nothing_at_temperature_1(model_path: Path) -> None:
    expected = await cold(model_path)
    for n_batch in (32, 100, 512):
        async with warmed(model_path, n_batch=n_batch) as cache:
            assert await cold(model_path, n_batch=n_batch) == expected
            assert await run_all(cache) == expected


async def test_llama_server_case_slots_other_than_0_give_what_slot_0_gives(model_path: Path) -> None:
    expected = await cold(model_path)
    async with warmed(model_path, n_ctx=2048, n_seq_max=5) as cache:
        assert await run_all(cache) == await cold(model_path, n_ctx=2048, n_seq_max=5) == expected
        for slot in range(1, 5):
            async with trio.open_nursery() as nursery, _occupied(cache, slot):
                completions = await run_all(cache)
                nursery.cancel_scope.cancel()
            assert completions == expected
            assert min(cached_tokens(completions)) >= len(SHARED) // BLOCK * BLOCK


@asynccontextmanager
async def _occupied(cache: Cached, slots: int) -> AsyncIterator[None]:
    """The lowest ``slots`` sequences are taken by streams that nobody reads."""
    async with trio.open_nursery() as nursery:
        begun = [trio.Event() for _ in range(slots)]

        async def hold(number: int) -> None:
            async with cache.model.stream([400 + number], ignore_eos=True, seed=1) as request:
                await request.__anext__()
                begun[number].set()
                await trio.sleep_forever()

        for number in range(slots):
            nursery.start_soon(hold, number)
            await begun[number].wait()
        yield
        nursery.cancel_scope.cancel()
