"""Several processes and one session: one writer at a time, and none that dies takes anything with it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from speaker import as_json, say
from talking import SAYINGS, talking
from writer import FACTS, recorded

from paddock.errors import SessionBusy
from paddock.sessions.conversation import Conversation
from paddock.sessions.store import SessionStore

HERE = Path(__file__).parent


@contextmanager
def stalled(folder: Path, turns: int, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process in the middle of a turn that follows so many turns; it goes on when its stdin is closed."""
    order = {
        "source": "cria", "folder": str(folder), "options": options, "first": 0, "last": turns, "sampling": {},
        "others": 0, "hibernate": False, "stall": True,
    }  # fmt: skip
    command = [sys.executable, HERE / "speaker.py", json.dumps(order)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("isolation", ["thread", "process"])
async def test_a_process_killed_in_the_middle_of_a_turn_leaves_the_session_as_it_was(
    isolation: str, tmp_path: Path
) -> None:
    with stalled(tmp_path, 2, isolation=isolation) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    async with talking("cria", tmp_path) as here:
        session, unbroken = await here.model.session("main"), await here.model.session("unbroken")
        assert len(await session.history()) == 2
        bits = [await say(unbroken, number, {}) for number in range(4)]
        assert [await say(session, number, {}) for number in (2, 3)] == bits[2:]
        assert as_json(await session.history()) == as_json(await unbroken.history())


async def test_a_second_process_waits_for_the_first_or_hears_who_has_the_session(tmp_path: Path) -> None:
    with stalled(tmp_path, 1) as process:
        async with talking("cria", tmp_path) as here:
            hasty = await here.model.session("main", wait=False)
            with pytest.raises(SessionBusy) as busy:
                await hasty.say("Hello!")
            assert busy.value.pid == process.pid
            patient = await here.model.session("main")
            with trio.move_on_after(0.2) as gave_up:
                await patient.say("Hello!")
            assert gave_up.cancelled_caught
            assert len(await patient.history()) == 1
            async with trio.open_nursery() as nursery:
                numbers = []

                async def wait() -> None:
                    numbers.append((await patient.say("Hello!", max_tokens=3)).number)

                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert process.stdin is not None
                process.stdin.close()
            assert numbers == [3]
            assert [turn.messages[0]["content"] for turn in await patient.history()] == [
                SAYINGS[0], "Tell me a story.", "Hello!",
            ]  # fmt: skip


async def test_of_turns_recorded_by_a_process_that_is_killed_at_any_moment_none_is_lost_and_none_torn(
    tmp_path: Path,
) -> None:
    rng = random.Random(5)
    reported = 0
    for _ in range(6):
        command = [sys.executable, HERE / "writer.py", str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(rng.randrange(1, 40)):
                reported = int(process.stdout.readline())
            await trio.sleep(rng.random() * 0.002)
            process.kill()
            reported = max([reported, *map(int, process.stdout.read().split(b"\n")[:-1])])
        store = SessionStore(tmp_path)
        stored = await store.read(FACTS.key)
        await store.close()
        turns = len(stored.conversation.turns)
        assert turns in (reported, reported + 1)
        assert stored.conversation == Conversation.of(FACTS, [recorded(number) for number in range(1, turns + 1)])
        reported = turns
    assert reported > 6
    assert os.listdir(tmp_path / "locks") == []
