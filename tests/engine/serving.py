"""What the serving suites share: a runtime with one small model, and ways to run many requests."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

import paddock

Arguments = dict[str, Any]


@asynccontextmanager
async def serving(path: Path, **options: Any) -> AsyncIterator[paddock.Model]:
    """The model under the name "tiny", alone in a runtime."""
    options = {"n_ctx": 2048, "n_seq_max": 16, "n_threads": 1, **options}
    async with paddock.open_runtime() as runtime:
        yield await runtime.load_model(path, name="tiny", **options)


def mixed_requests(count: int, seed: int, *, longest: int = 1500) -> list[Arguments]:
    """Requests that differ in everything: prompt length, seed, sampling, length of the reply."""
    rng = random.Random(seed)
    requests = []
    for number in range(count):
        length = rng.choice([1, 2, 3, rng.randrange(4, 64), rng.randrange(64, 400), rng.randrange(400, 1501)])
        requests.append(
            {
                "prompt": [rng.randrange(300, 2048) for _ in range(min(length, longest))],
                "seed": number,
                "max_tokens": rng.randrange(1, 33),
                "temperature": rng.choice([0.0, 0.8, 1.3]),
                "repeat_penalty": rng.choice([1.0, 1.2]),
                "logprobs": rng.choice([None, 0, 3]),
                "ignore_eos": True,
            }
        )
    return requests


async def one_after_another(model: paddock.Model, requests: Sequence[Arguments]) -> list[paddock.Completion]:
    return [await model.complete(**request) for request in requests]


async def all_at_once(
    model: paddock.Model, requests: Sequence[Arguments], *, arrivals: random.Random | None = None
) -> list[paddock.Completion]:
    """Runs all of them concurrently; with ``arrivals`` each begins at a random moment within 0.4 s."""
    completions: dict[int, paddock.Completion] = {}

    async def run(number: int, delay: float) -> None:
        await trio.sleep(delay)
        completions[number] = await model.complete(**requests[number])

    async with trio.open_nursery() as nursery:
        for number in range(len(requests)):
            nursery.start_soon(run, number, 0.0 if arrivals is None else arrivals.random() * 0.4)
    return [completions[number] for number in range(len(requests))]
