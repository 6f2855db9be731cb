"""A model in service, end to end: real llama.cpp behind the whole tree, in both isolation modes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import trio
from serving import all_at_once, mixed_requests, one_after_another, serving

import paddock
from paddock.errors import RequestCancelled

ISOLATIONS = ("process", "thread")


@pytest.fixture(params=ISOLATIONS)
def isolation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_requests_at_once_equal_the_same_requests_one_after_another(
    tiny_model_path: Path, isolation: str
) -> None:
    requests = mixed_requests(16, seed=1)
    async with serving(tiny_model_path, isolation=isolation) as model:
        alone = await one_after_another(model, requests)
        together = await all_at_once(model, requests, arrivals=random.Random(2))
    assert together == alone
    assert len({completion.token_ids for completion in alone}) > 8


async def test_requests_at_once_equal_the_same_requests_alone_with_k_quants(tiny_k_quant_model_path: Path) -> None:
    requests = mixed_requests(16, seed=4, longest=400)
    async with serving(tiny_k_quant_model_path) as model:
        assert model.exactness == "canonical"
        alone = await one_after_another(model, requests)
        together = await all_at_once(model, requests, arrivals=random.Random(5))
    assert together == alone


async def test_requests_at_once_equal_the_same_requests_alone_with_f16_weights(tiny_f16_model_path: Path) -> None:
    requests = mixed_requests(12, seed=6, longest=200)
    async with serving(tiny_f16_model_path) as model:
        assert model.exactness == "canonical"
        alone = await one_after_another(model, requests)
        together = await all_at_once(model, requests, arrivals=random.Random(7))
    assert together == alone


async def test_both_isolation_modes_give_the_same_bytes(tiny_model_path: Path) -> None:
    requests = mixed_requests(6, seed=3, longest=200)
    results = []
    for isolation in ISOLATIONS:
        async with serving(tiny_model_path, isolation=isolation) as model:
            results.append(await all_at_once(model, requests))
    assert results[0] == results[1]


async def test_streams_share_decode_steps(tiny_model_path: Path, isolation: str) -> None:
    async with serving(tiny_model_path, isolation=isolation) as model:
        requests = [{"prompt": [300 + n, 400, 500], "max_tokens": 40, "seed": n, "ignore_eos": True} for n in range(16)]
        before = await model.statistics()
        await all_at_once(model, requests)
        after = await model.statistics()
    decode_steps = after.decode_steps - before.decode_steps
    prefill_steps = after.prefill_steps - before.prefill_steps
    assert prefill_steps == 16
    assert after.decode_rows - before.decode_rows == 16 * 39
    assert 39 <= decode_steps <= 39 + 2 * prefill_steps


async def test_a_stream_gives_the_same_text_and_tokens_as_the_completion(tiny_model_path: Path, isolation: str) -> None:
    async with serving(tiny_model_path, isolation=isolation) as model:
        arguments: dict[str, Any] = {"max_tokens": 40, "seed": 5, "logprobs": 2}
        completion = await model.complete("abc def", **arguments)
        async with model.stream("abc def", **arguments) as request:
            deltas = [delta async for delta in request]
            assert await request.result() == completion
        assert "".join(delta.text for delta in deltas) == completion.text
        assert [token for delta in deltas for token in delta.token_ids] == list(completion.token_ids)
        rows = tuple(row for delta in deltas for row in delta.logprobs or ())
        assert rows == completion.logprobs
        assert completion.usage.completion_tokens == len(completion.token_ids) == 40


async def test_half_of_the_streams_cancelled_at_random_moments_leave_the_rest_untouched(
    tiny_model_path: Path, isolation: str
) -> None:
    rng = random.Random(11)
    requests = [
        {
            "prompt": [rng.randrange(300, 2048) for _ in range(rng.choice([5, 20, 300]))],
            "max_tokens": 60,
            "seed": number,
            "ignore_eos": True,
        }
        for number in range(32)
    ]
    victims = set(rng.sample(range(32), 16))
    async with serving(tiny_model_path, isolation=isolation, n_seq_max=32, n_ctx=512) as model:
        undisturbed = await all_at_once(model, requests)
        outcomes: dict[int, object] = {}

        async def run(number: int) -> None:
            async with model.stream(**requests[number]) as request:
                if number in victims:
                    enough = rng.randrange(0, 50)
                    seen = 0
                    try:
                        if enough == 0:
                            request.cancel()
                        async for delta in request:
                            seen += len(delta.token_ids)
                            if seen >= enough:
                                request.cancel()
                                request.cancel()
                    except RequestCancelled as error:
                        outcomes[number] = error.origin
                else:
                    outcomes[number] = await request.result()

        async with trio.open_nursery() as nursery:
            for number in range(32):
                nursery.start_soon(run, number)
        for number, outcome in outcomes.items():
            if number in victims:
                assert outcome == "handle"
            else:
                assert outcome == undisturbed[number]
        statistics = await model.statistics()
    assert statistics.sequences_free == statistics.sequences == 32
    assert statistics.queued == statistics.running == 0
    assert statistics.submitted == 64 == statistics.completed + statistics.cancelled + statistics.failed
    assert statistics.failed == 0


async def test_a_consumer_that_goes_away_cancels_its_request(tiny_model_path: Path, isolation: str) -> None:
    async with serving(tiny_model_path, isolation=isolation, n_seq_max=1) as model:
        endless: dict[str, Any] = {"ignore_eos": True, "seed": 1}
        async with model.stream("abc", **endless) as request:
            await request.__anext__()
        with trio.move_on_after(0.05):
            await model.complete("abc", **endless)
        with pytest.raises(RuntimeError, match="consumer's own"):
            async with model.stream("abc", **endless) as request:
                raise RuntimeError("consumer's own")
        assert (await model.complete("abc", max_tokens=2, seed=1)).usage.completion_tokens <= 2
        statistics = await model.statistics()
    assert statistics.sequences_free == 1
    assert statistics.cancelled == 3


async def test_a_slow_consumer_pauses_its_own_row_only(tiny_model_path: Path, isolation: str) -> None:
    async with serving(tiny_model_path, isolation=isolation, delta_buffer=4) as model:
        arguments: dict[str, Any] = {"max_tokens": 100, "seed": 3, "ignore_eos": True}
        expected = await model.complete("abc", **arguments)
        async with model.stream("abc", **arguments) as slow:
            await model.complete("other", max_tokens=150, seed=4, ignore_eos=True)
            generated = slow.progress.generated
            assert 4 <= generated <= 8
            assert not slow.finished
            assert await slow.result() == expected


async def test_cancelling_while_queued_leaves_at_once(tiny_model_path: Path, isolation: str) -> None:
    async with (
        serving(tiny_model_path, isolation=isolation, n_seq_max=1) as model,
        model.stream("abc", ignore_eos=True) as running,
        model.stream("def", ignore_eos=True) as queued,
    ):
        await running.__anext__()
        assert queued.progress.phase == "queued"
        queued.cancel()
        with pytest.raises(RequestCancelled):
            await queued.result()
        statistics = await model.statistics()
        assert statistics.queued == 0
        assert statistics.running == 1


async def test_several_models_serve_at_once_and_reload_under_the_same_name(
    tiny_model_path: Path, isolation: str
) -> None:
    async with paddock.open_runtime() as runtime:
        options: dict[str, Any] = {"isolation": isolation, "n_ctx": 256, "n_seq_max": 2, "n_threads": 1}
        first = await runtime.load_model(tiny_model_path, name="one", **options)
        second = await runtime.load_model(tiny_model_path, name="two", **options)
        expected = await first.complete("abc", seed=1, max_tokens=5)
        assert (await second.complete("abc", seed=1, max_tokens=5)).token_ids == expected.token_ids
        for _ in range(3):
            await runtime.unload_model("one")
            with pytest.raises(paddock.ModelNotLoaded):
                await first.complete("abc")
            with pytest.raises(paddock.ModelNotLoaded):
                runtime.model("one")
            first = await runtime.load_model(tiny_model_path, name="one", **options)
            assert await first.complete("abc", seed=1, max_tokens=5) == expected
        assert set(runtime.models) == {"one", "two"}


async def test_unload_drains_what_runs_or_cancels_it(tiny_model_path: Path, isolation: str) -> None:
    async with paddock.open_runtime() as runtime:
        options: dict[str, Any] = {"isolation": isolation, "n_ctx": 512, "n_seq_max": 1, "n_threads": 1}
        for cancel in (False, True):
            model = await runtime.load_model(tiny_model_path, name="one", **options)
            async with (
                model.stream("abc", max_tokens=50, seed=1, ignore_eos=True) as running,
                model.stream("abc", max_tokens=50, seed=1, ignore_eos=True) as queued,
            ):
                await running.__anext__()
                await runtime.unload_model("one", cancel=cancel)
                for request in (running, queued):
                    if cancel:
                        with pytest.raises(RequestCancelled) as caught:
                            await request.result()
                        assert caught.value.origin == "unload"
                    else:
                        assert (await request.result()).usage.completion_tokens == 50
