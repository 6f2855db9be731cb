"""What the KV store holds of a session: what hibernating and deleting do to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from talking import Talking, talking

import paddock
from paddock.cache.statistics import CacheStatistics

LONG = "Tell me about the llama and the goat and the sheep on the hill. " * 12


async def statistics(here: Talking) -> CacheStatistics:
    found = await here.runtime.cache_statistics()
    assert found is not None
    return found


async def saved(here: Talking, blocks: int = 3) -> CacheStatistics:
    """Once so many blocks are in memory and, where there is a disk tier, on disk."""
    with trio.fail_after(20):
        while True:
            found = await statistics(here)
            if found.ram_blocks >= blocks and not found.due_blocks:
                return found
            await trio.sleep(0.005)


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.kv"))


async def long_turn(here: Talking, id: str, **options: Any) -> paddock.Session:
    session = await here.model.session(id, **options)
    await session.say(LONG + id, max_tokens=20, seed=1, ignore_eos=True)
    return session


async def test_a_session_that_hibernates_leaves_its_blocks_on_disk_and_none_in_memory(tmp_path: Path) -> None:
    async with talking("cria", tmp_path, disk=True) as here:
        session = await long_turn(here, "one")
        await saved(here)
        await session.hibernate()
        asleep = await statistics(here)
        assert (asleep.ram_blocks, asleep.ram_bytes) == (0, 0)
        assert asleep.disk_blocks == len(files(tmp_path)) > 2
        turn = await session.say("And then?", max_tokens=5)
        assert turn.usage.cached_tokens >= 128


@pytest.mark.parametrize("disk", [False, True])
async def test_of_a_session_that_was_deleted_nothing_stays_cached(disk: bool, tmp_path: Path) -> None:
    async with talking("cria", tmp_path, disk=disk) as here:
        session = await here.model.session("one")
        await session.say(LONG, max_tokens=60, seed=1, ignore_eos=True, stop=["the"])
        await session.say(LONG, max_tokens=60, seed=2, ignore_eos=True)
        # At once: its last blocks are still being saved.
        await session.delete()
        other = await long_turn(here, "two", tenant="me")
        await saved(here)
        await other.delete()
        gone = await statistics(here)
        assert (gone.ram_blocks, gone.ram_bytes, gone.disk_blocks) == (0, 0, 0)
        assert files(tmp_path) == []
        again = await here.model.session("one")
        assert (await again.say(LONG, max_tokens=2)).usage.cached_tokens == 0


async def test_deleting_a_session_leaves_those_of_others(tmp_path: Path) -> None:
    async with talking("cria", tmp_path, disk=True) as here:
        mine = await long_turn(here, "one", tenant="me")
        await saved(here)
        yours = await long_turn(here, "one", tenant="you")
        before = await saved(here, 6)
        await mine.delete()
        after = await statistics(here)
        assert 0 < after.ram_blocks < before.ram_blocks
        assert (await yours.say("And then?", max_tokens=2)).usage.cached_tokens >= 128


async def test_a_conversation_that_hibernated_is_restored_from_disk_in_the_next_runtime(tmp_path: Path) -> None:
    async with talking("cria", tmp_path, disk=True) as here:
        session = await long_turn(here, "one")
        await saved(here)
        await session.hibernate()
        (turn,) = await session.history()
    async with talking("cria", tmp_path, disk=True) as here:
        session = await here.model.session("one")
        again = await session.say("And then?", max_tokens=5, seed=2)
        stood = turn.usage.prompt_tokens + turn.usage.completion_tokens
        assert again.usage.cached_tokens == (stood - 1) // 64 * 64
        assert (await here.model.statistics()).prefill_rows < 64 + again.usage.prompt_tokens - stood
