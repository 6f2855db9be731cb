"""What the tests of the prefix cache share: a runtime with one model and a cache, and ways to wait for it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

import paddock
import supervisors as sup
from paddock.api import runtime as runtime_module
from paddock.cache.arena import Arena
from paddock.cache.statistics import CacheStatistics

BLOCK = 64

GREEDY: dict[str, Any] = {"temperature": 0.0}
WILD: dict[str, Any] = {
    "temperature": 1.0,
    "repeat_penalty": 1.2,
    "presence_penalty": 0.3,
    "frequency_penalty": 0.2,
    "dry_multiplier": 0.8,
    "xtc_probability": 0.5,
    "xtc_threshold": 0.02,
}


def tokens_of(seed: int, length: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(300, 2048) for _ in range(length)]


def request(prompt: list[int], **arguments: Any) -> dict[str, Any]:
    """Arguments of a request whose reply shows every bit: token ids and log-probabilities."""
    return {"prompt": prompt, "seed": 7, "max_tokens": 12, "logprobs": 2, "ignore_eos": True, **arguments}


@attrs.define
class Cached:
    """A model with a prefix cache, and the runtime that it is loaded in."""

    runtime: paddock.Runtime
    model: paddock.Model

    async def complete(self, prompt: list[int], **arguments: Any) -> paddock.Completion:
        return await self.model.complete(**request(prompt, **arguments))

    async def statistics(self) -> CacheStatistics:
        statistics = await self.runtime.cache_statistics()
        assert statistics is not None
        return statistics

    async def settled(self) -> CacheStatistics:
        """Once every save has been answered and every block that is due is on disk."""
        with trio.fail_after(20):
            while True:
                saving = await self.saving()  # first, so that the figures are of a moment after its end
                use, statistics = await self.model.statistics(), await self.statistics()
                published = statistics.saved_blocks + statistics.known_blocks
                if not saving and use.saved_blocks == published and not statistics.due_blocks:
                    return statistics
                await trio.sleep(0.002)

    async def saving(self) -> bool:
        child = await sup.which_child(self.model.supervisor, "batch")
        assert isinstance(child.pid, sup.Pid)
        status: Any = await sup.get_status(child.pid)
        return bool(status["state"]["saves"])


@asynccontextmanager
async def cached(path: Path, folder: Path | None = None, **options: Any) -> AsyncIterator[Cached]:
    """The model under the name "tiny"; ``ram`` is the budget of the RAM tier.

    Without the probe at load: what it finds out is compared here byte by byte.
    """
    config = paddock.RuntimeConfig(cache_dir=folder, ram_cache_bytes=options.pop("ram", 128 << 20))
    options = {"n_ctx": 1024, "n_seq_max": 12, "n_threads": 1, "isolation": "thread", "probe_seconds": 0.0, **options}
    async with paddock.open_runtime(config) as runtime:
        yield Cached(runtime, await runtime.load_model(path, name="tiny", **options))


@pytest.fixture
def arenas(monkeypatch: pytest.MonkeyPatch) -> list[Arena]:
    """The arenas of all models that are loaded from here on."""
    made: list[Arena] = []

    class Recorded(Arena):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(runtime_module, "Arena", Recorded)
    return made
