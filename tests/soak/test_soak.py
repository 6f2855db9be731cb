"""Ten thousand short requests: nothing grows. In the slow group: `make test-slow`."""

from __future__ import annotations

import gc
import random
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

import paddock

REQUESTS = 10_000
WARM_UP = 2_500
STREAMS = 32
ALLOWED_GROWTH = 8 * 1024 * 1024
"""Bytes; allocators keep some room, a leak of 2 KB a request would be twice as much."""


@pytest.mark.slow
async def test_ten_thousand_short_requests_leave_the_memory_of_parent_and_worker_flat(tiny_model_path: Path) -> None:
    rng = random.Random(5)

    def arguments(number: int) -> dict[str, Any]:
        return {
            "prompt": [rng.randrange(300, 2048) for _ in range(rng.randrange(1, 12))],
            "max_tokens": rng.randrange(1, 6),
            "seed": number,
            "temperature": rng.choice([0.0, 1.0]),
            "stop": ["never to be seen"],
        }

    async with paddock.open_runtime() as runtime:
        model = await runtime.load_model(tiny_model_path, n_ctx=64, n_seq_max=16, n_threads=1)
        worker_pid = (await model.statistics()).worker_pid
        assert worker_pid is not None
        parent, worker = psutil.Process(), psutil.Process(worker_pid)

        async def client(numbers: range) -> None:
            for number in numbers:
                if number % 10 == 0:
                    async with model.stream(**arguments(number)) as request:
                        request.cancel()
                else:
                    await model.complete(**arguments(number))

        async def run(first: int, last: int) -> tuple[int, int]:
            async with trio.open_nursery() as nursery:
                for lane in range(STREAMS):
                    nursery.start_soon(client, range(first + lane, last, STREAMS))
            gc.collect()
            return parent.memory_info().rss, worker.memory_info().rss

        before = await run(0, WARM_UP)
        after = await run(WARM_UP, REQUESTS)
        statistics = await model.statistics()
        assert (await model.statistics()).worker_pid == worker_pid

    assert statistics.submitted == statistics.completed + statistics.cancelled == REQUESTS
    assert statistics.sequences_free == statistics.sequences
    assert after[0] - before[0] < ALLOWED_GROWTH, "the parent grows"
    assert after[1] - before[1] < ALLOWED_GROWTH, "the worker grows"
