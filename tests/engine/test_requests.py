"""One request at a time, seen closely: bounds, deadlines, bad input, hooks. Each refusal leaves the model serving."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from serving import serving

import paddock
from paddock.errors import InvalidParameter, LogitsProcessorError


@pytest.mark.parametrize(
    ("arguments", "parameter"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": b"caf\xe9"}, "prompt"),
        ({"prompt": "lone \ud800"}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": [1.5]}, "prompt"),
        ({"prompt": [5, 2048]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"no_such_parameter": 1}, "no_such_parameter"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"stop": [f"stop {n}" for n in range(10_000)]}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"logit_bias": {2048: 1.0}}, "logit_bias"),
        ({"logit_bias": {-1: 1.0}}, "logit_bias"),
        ({"stop_token_ids": [99_999]}, "stop_token_ids"),
        ({"seed": -1}, "seed"),
        ({"priority": 101}, "priority"),
        ({"deadline": 0}, "deadline"),
        ({"deadline": math.inf}, "deadline"),
        ({"logits_processor": 3}, "logits_processor"),
        ({"add_special": "yes"}, "add_special"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else None,
)
async def test_bad_input_is_refused_by_name_and_the_model_serves_on(
    bad_input_model: paddock.Model, arguments: dict[str, Any], parameter: str
) -> None:
    with pytest.raises(InvalidParameter) as caught:
        await bad_input_model.complete(**{"prompt": "abc", "max_tokens": 3, **arguments})
    assert caught.value.parameter == parameter
    assert (await bad_input_model.complete("abc", max_tokens=1, seed=1)).token_ids


@pytest.fixture
async def bad_input_model(tiny_model_path: Path) -> Any:
    async with serving(tiny_model_path, isolation="thread", n_ctx=256, n_seq_max=2, n_threads=1) as model:
        yield model


async def test_a_prompt_of_ten_megabytes_is_refused_without_delay(tiny_model_path: Path) -> None:
    async with serving(tiny_model_path) as model:
        with pytest.raises(paddock.ContextOverflow) as caught:
            await model.complete("word " * 2_000_000)
        assert caught.value.at_least
        assert caught.value.prompt_tokens > caught.value.n_ctx == 2048
        assert (await model.complete("abc", max_tokens=1, seed=1)).token_ids


async def test_what_cannot_fit_is_refused_with_both_numbers(tiny_model_path: Path) -> None:
    async with serving(tiny_model_path, n_ctx=256) as model:
        with pytest.raises(paddock.ContextOverflow) as caught:
            await model.complete([300] * 200, max_tokens=57)
        error = caught.value
        assert (error.prompt_tokens, error.max_tokens, error.n_ctx) == (200, 57, 256)
        fits = await model.complete([300] * 200, max_tokens=56, ignore_eos=True)
        assert fits.usage.completion_tokens == 56
        to_the_end = await model.complete([300] * 200, ignore_eos=True)
        assert to_the_end.usage.completion_tokens == 56
        assert to_the_end.finish_reason == "length"


async def test_one_request_more_than_the_queue_holds_is_refused(tiny_model_path: Path) -> None:
    async with serving(tiny_model_path, n_seq_max=1, queue_limit=2) as model:
        endless: dict[str, Any] = {"ignore_eos": True, "seed": 1}
        async with (
            model.stream("abc", **endless) as running,
            model.stream("abc", **endless),
            model.stream("abc", **endless),
        ):
            await running.__anext__()
            with pytest.raises(paddock.QueueFull) as caught:
                await model.complete("abc")
            assert caught.value.limit == 2
        statistics = await model.statistics()
        assert statistics.refused == 1
        assert (await model.complete("abc", max_tokens=1, seed=1)).token_ids


async def test_a_deadline_ends_a_request_wherever_it_is(tiny_model_path: Path) -> None:
    async with serving(tiny_model_path, n_seq_max=1, n_ctx=4096) as model:
        async with model.stream("abc", ignore_eos=True, deadline=0.3) as running:
            with pytest.raises(paddock.DeadlineExceeded) as queued:
                await model.complete("abc", deadline=0.1)
            assert queued.value.phase == "queued"
            with pytest.raises(paddock.DeadlineExceeded) as decoding:
                await running.result()
            assert decoding.value.phase == "decode"
        assert (await model.complete("abc", max_tokens=1, seed=1, deadline=30)).token_ids


async def test_a_higher_priority_is_admitted_first(tiny_model_path: Path) -> None:
    order: list[str] = []
    async with serving(tiny_model_path, n_seq_max=1) as model:

        async def run(name: str, priority: int) -> None:
            await model.complete("abc", max_tokens=2, priority=priority, seed=1)
            order.append(name)

        async with trio.open_nursery() as nursery, model.stream("abc", ignore_eos=True) as running:
            await running.__anext__()
            for name, priority in (("low", -5), ("first", 0), ("second", 0), ("high", 5)):
                nursery.start_soon(run, name, priority)
                while (await model.statistics()).queued <= len(order) + ["low", "first", "second", "high"].index(name):
                    await trio.sleep(0.001)
    assert order == ["high", "first", "second", "low"]


async def test_an_absent_seed_is_drawn_once_and_repeats_the_reply(tiny_model_path: Path) -> None:
    async with serving(tiny_model_path) as model:
        drawn = await model.complete("abc", max_tokens=20, temperature=1.2)
        again = await model.complete("abc", max_tokens=20, temperature=1.2, seed=drawn.seed)
        other = await model.complete("abc", max_tokens=20, temperature=1.2)
        assert again == drawn
        assert other.seed != drawn.seed


async def test_stop_strings_end_the_reply_wherever_the_tokens_break(scripted_model: Callable[..., Path]) -> None:
    path = scripted_model("Hello wörld 🦙 and on".encode())
    async with serving(path, n_ctx=256) as model:
        whole = await model.complete("x", temperature=0)
        assert whole.text == "Hello wörld 🦙 and on"
        assert (whole.finish_reason, whole.stop) == ("stop", None)
        stopped = await model.complete("x", temperature=0, stop=["🦙", "never"])
        assert stopped.text == "Hello wörld "
        assert (stopped.finish_reason, stopped.stop) == ("stop", "🦙")
        cut = await model.complete("x", temperature=0, max_tokens=8)
        assert cut.text == "Hello w\N{REPLACEMENT CHARACTER}"
        assert cut.finish_reason == "length"
        async with model.stream("x", temperature=0) as request:
            pieces = [delta.text async for delta in request]
        assert "".join(pieces) == whole.text
        assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


@pytest.mark.parametrize("isolation", ["process", "thread"])
async def test_a_logits_processor_steers_its_own_request_only(tiny_model_path: Path, isolation: str) -> None:
    seen: list[int] = []

    def only_five_hundred(tokens: Sequence[int], logits: np.ndarray) -> None:
        assert threading.current_thread() is not threading.main_thread()
        seen.append(len(tokens))
        keep = logits[500]
        logits[:] = -np.inf
        logits[500] = keep

    def identity(tokens: Sequence[int], logits: np.ndarray) -> np.ndarray:
        return logits

    async with serving(tiny_model_path, isolation=isolation, n_ctx=256) as model:
        arguments: dict[str, Any] = {"prompt": [400, 401, 402], "max_tokens": 8, "seed": 1, "ignore_eos": True}
        plain = await model.complete(**arguments)
        results: dict[str, paddock.Completion] = {}

        async def run(name: str, **more: Any) -> None:
            results[name] = await model.complete(**arguments, **more)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, "plain")
            nursery.start_soon(lambda: run("steered", logits_processor=only_five_hundred))
            nursery.start_soon(lambda: run("identity", logits_processor=identity))
        assert results["plain"] == plain == results["identity"]
        assert results["steered"].token_ids == (500,) * 8
        assert seen == list(range(3, 11))


@pytest.mark.parametrize(
    "processor",
    [
        lambda tokens, logits: 1 / 0,
        lambda tokens, logits: logits[:-1],
        lambda tokens, logits: "no row",
        lambda tokens, logits: logits * np.nan,
        lambda tokens, logits: np.full_like(logits, -np.inf),
    ],
    ids=["raises", "short", "text", "nan", "nothing left"],
)
async def test_a_broken_logits_processor_fails_its_own_request(
    bad_input_model: paddock.Model, processor: Callable[..., Any]
) -> None:
    async with bad_input_model.stream("abc", max_tokens=20, seed=1, ignore_eos=True) as neighbour:
        with pytest.raises(LogitsProcessorError):
            await bad_input_model.complete("abc", logits_processor=processor)
        assert (await neighbour.result()).usage.completion_tokens == 20


async def test_a_logits_processor_that_never_returns_is_left_behind_when_its_request_is_cancelled(
    bad_input_model: paddock.Model,
) -> None:
    entered, release = threading.Event(), threading.Event()

    def hang(tokens: Sequence[int], logits: np.ndarray) -> None:
        entered.set()
        release.wait(30)

    try:
        with pytest.raises(paddock.DeadlineExceeded):
            await bad_input_model.complete("abc", logits_processor=hang, deadline=0.3)
        assert entered.is_set()
        assert (await bad_input_model.complete("abc", max_tokens=1, seed=1)).token_ids
    finally:
        release.set()


async def test_a_request_is_entered_once_and_used_only_inside(bad_input_model: paddock.Model) -> None:
    request = bad_input_model.stream("abc", max_tokens=1)
    with pytest.raises(RuntimeError, match="enter the request first"):
        await request.result()
    async with request:
        await request.result()
    with pytest.raises(RuntimeError, match="entered once"):
        async with request:
            pass
    cancelled = bad_input_model.stream("abc")
    cancelled.cancel()
    with pytest.raises(paddock.RequestCancelled):
        async with cancelled:
            pass


async def test_a_text_is_tokenized_and_put_together_again(bad_input_model: paddock.Model) -> None:
    tokens = await bad_input_model.tokenize("héllo 🦙", add_special=False)
    assert bad_input_model.detokenize(tokens).strip() == "héllo 🦙"
    assert await bad_input_model.tokenize("", add_special=False) == []
