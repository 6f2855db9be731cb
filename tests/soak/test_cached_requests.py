"""Two thousand requests with a cache that is too small for them, one in four cancelled: nothing stays held, nothing
grows. In the slow group: `make test-slow`."""

from __future__ import annotations

import gc
import random
import sys
import threading
from pathlib import Path

import psutil
import pytest
import trio

sys.path.insert(0, str(Path(__file__).parent.parent / "engine"))

from caching import BLOCK, cached, tokens_of

SLOT_BYTES = BLOCK * 4 * 2 * 128 * 2
LANES = 16
ALLOWED_GROWTH = 8 << 20
"""Bytes, as in ``test_soak.py``."""


@pytest.mark.slow
async def test_two_thousand_requests_with_a_cache_leave_nothing_behind(tiny_model_path: Path, tmp_path: Path) -> None:
    rng, parent = random.Random(1), psutil.Process()
    async with cached(tiny_model_path, tmp_path, isolation="process", n_ctx=256, ram=32 * SLOT_BYTES) as cache:
        pid = (await cache.model.statistics()).worker_pid
        assert pid is not None
        worker = psutil.Process(pid)

        async def client(requests: int) -> None:
            for _ in range(requests):
                prompt = tokens_of(rng.randrange(40), rng.randrange(5, 200))
                with trio.move_on_after(rng.random() * 0.05 if rng.random() < 0.25 else 60):
                    await cache.complete(prompt, max_tokens=rng.randrange(1, 4), logprobs=None)

        async def run(requests: int) -> dict[str, int]:
            async with trio.open_nursery() as nursery:
                for _ in range(LANES):
                    nursery.start_soon(client, requests)
            statistics, use = await cache.settled(), await cache.model.statistics()
            assert (statistics.pinned_blocks, use.sequences_free, use.failed) == (0, 12, 0)
            assert statistics.ram_bytes == statistics.ram_blocks * SLOT_BYTES
            assert statistics.ram_bytes_max <= 32 * SLOT_BYTES
            gc.collect()
            return {
                "files": parent.num_fds() + worker.num_fds(),
                "children": len(parent.children(recursive=True)),
                "tasks": trio.lowlevel.current_statistics().tasks_living,
                "threads of the worker": worker.num_threads(),
            }

        before = await run(25)
        memory = parent.memory_info().rss, worker.memory_info().rss
        assert await run(100) == before
        assert parent.memory_info().rss - memory[0] < ALLOWED_GROWTH
        assert worker.memory_info().rss - memory[1] < ALLOWED_GROWTH
    assert parent.children(recursive=True) == []
    assert all("Trio thread" in thread.name or thread is threading.main_thread() for thread in threading.enumerate())
