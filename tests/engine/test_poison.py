"""Requests that bring the worker down: they are found, fail alone, and their neighbours never know."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import trio
from faults import SEEDS, faulty
from serving import mixed_requests

import paddock


async def outcomes_of(model: paddock.Model, requests: list[dict[str, Any]]) -> list[Any]:
    outcomes: list[Any] = [None] * len(requests)

    async def run(number: int) -> None:
        try:
            outcomes[number] = await model.complete(**requests[number])
        except paddock.PaddockError as error:
            outcomes[number] = error

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for number in range(len(requests)):
                nursery.start_soon(run, number)
    return outcomes


@pytest.mark.parametrize(
    ("fault", "further", "how"),
    [
        ("assertion late", 2, "SIGABRT"),
        pytest.param("kill", 3, "SIGKILL", marks=pytest.mark.slow),
        pytest.param("assertion", 2, "SIGABRT", marks=pytest.mark.slow),
        pytest.param("segfault", 2, "SIGSEGV", marks=pytest.mark.slow),
    ],
)
async def test_a_request_that_kills_the_worker_fails_alone_among_fifteen_good_ones(
    tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, further: int, how: str
) -> None:
    rng = random.Random(fault)
    good = [{**request, "max_tokens": 30} for request in mixed_requests(15, 3, longest=100)]
    poison = {"prompt": [400] * 90, "seed": SEEDS[fault], "max_tokens": 60, "ignore_eos": True}
    async with faulty(tiny_model_path, monkeypatch, max_restarts=1) as model:
        expected = [await model.complete(**request) for request in good]
        place = rng.randrange(16)
        outcomes = await outcomes_of(model, [*good[:place], poison, *good[place:]])
        culprit = outcomes.pop(place)
        assert isinstance(culprit, paddock.PoisonRequest)
        assert how in culprit.how
        if fault.startswith("assertion"):
            assert "GGML_ASSERT" in culprit.last_words
        assert outcomes == expected
        await model.wait_serving()  # the good ones may have been done before the last death
        statistics = await model.statistics()
        assert statistics.state == "serving"
        assert statistics.worker_deaths == 1 + further
        assert (statistics.poisoned, statistics.failed) == (1, 1)
        assert statistics.sequences_free == 16


async def test_a_poison_that_comes_alone_is_found_as_well_and_the_queue_is_served(
    tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with faulty(tiny_model_path, monkeypatch, n_seq_max=1) as model:
        good = {"prompt": "abc", "seed": 1, "max_tokens": 5}
        expected = await model.complete(**good)
        outcomes = await outcomes_of(model, [{"prompt": "abc", "seed": SEEDS["segfault"]}, good, good])
        assert isinstance(outcomes[0], paddock.PoisonRequest)
        assert outcomes[1:] == [expected, expected]


async def test_a_suspect_that_is_cancelled_while_it_is_tried_clears_the_way(
    tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with faulty(tiny_model_path, monkeypatch, n_seq_max=2) as model:
        good = {"prompt": "abc", "seed": 1, "max_tokens": 300, "ignore_eos": True}
        expected = await model.complete(**good)
        async with model.stream(**good) as neighbour:
            await neighbour.__anext__()
            async with model.stream([400] * 90, seed=SEEDS["assertion"]) as poison:
                with trio.fail_after(30):
                    while (await model.statistics()).worker_deaths < 2:
                        await trio.sleep(0.005)
                poison.cancel()
                with trio.fail_after(30):
                    assert await neighbour.result() == expected
        assert (await model.statistics()).poisoned == 0
