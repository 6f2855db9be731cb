"""What the tests of sessions share: a runtime with one model and a folder for its sessions, and what to say to it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

import paddock
import supervisors as sup
from paddock.cache.statistics import CacheStatistics

SAYINGS = (
    "Hello! Who are you?",
    "Tell me a joke.",
    "What is the weather in Lima?",
    "Tell me a very short story about a llama.",
    "Thank you. What did you say first?",
    "And then?",
)

GREEDY: dict[str, Any] = {"temperature": 0.0}
WILD: dict[str, Any] = {"temperature": 1.0, "repeat_penalty": 1.2, "xtc_probability": 0.3, "xtc_threshold": 0.05}


@attrs.define
class Talking:
    """One model, and the runtime that it is loaded in."""

    runtime: paddock.Runtime
    model: paddock.Model

    async def held(self, id: str, turns: int, **options: Any) -> paddock.Session:
        """A session with so many short turns."""
        session = await self.model.session(id, **options)
        for number in range(turns):
            await session.say(SAYINGS[number % len(SAYINGS)], **how(number))
        return session

    async def settled(self) -> CacheStatistics:
        """Once every block that was saved has been published."""
        with trio.fail_after(20):
            while True:
                use, cache = await self.model.statistics(), await self.runtime.cache_statistics()
                assert cache is not None
                child = await sup.which_child(self.model.supervisor, "batch")
                assert isinstance(child.pid, sup.Pid)
                status: Any = await sup.get_status(child.pid)
                if not status["state"]["saves"] and use.saved_blocks == cache.saved_blocks + cache.known_blocks:
                    return cache
                await trio.sleep(0.002)


@asynccontextmanager
async def talking(source: str | Path, folder: Path, **options: Any) -> AsyncIterator[Talking]:
    """Without the probe at load: what it finds out is compared here byte by byte. ``ram=0``: without a cache."""
    ram = options.pop("ram", 64 << 20)
    disk = folder / "cache" if options.pop("disk", False) else None
    config = paddock.RuntimeConfig(state_dir=folder / "state", cache_dir=disk, ram_cache_bytes=ram)
    options = {"n_ctx": 2048, "n_seq_max": 8, "n_threads": 1, "isolation": "thread", "probe_seconds": 0.0, **options}
    async with paddock.open_runtime(config) as runtime:
        yield Talking(runtime, await runtime.load_model(source, name="model", **options))


def how(number: int, **sampling: Any) -> dict[str, Any]:
    """Arguments of a turn, which differ from turn to turn."""
    rng = random.Random(number)
    return {"seed": number, "max_tokens": rng.randrange(3, 24), **sampling}
