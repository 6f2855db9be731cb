"""What breaks in the middle of a turn: the session's actor, the worker, the model, the runtime."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio
from talking import SAYINGS, Talking, how, talking

import paddock
import supervisors as sup
from paddock.errors import (
    ModelNotLoaded,
    PaddockError,
    RequestCancelled,
    RuntimeClosed,
    SessionInterrupted,
)


def actor_of(here: Talking, id: str) -> sup.Pid[object]:
    pid = here.runtime._node.registry.whereis(("session", "default", id))
    assert pid is not None
    return pid


async def test_an_actor_that_is_killed_takes_its_turn_with_it_and_no_other(tmp_path: Path) -> None:
    async with talking("cria", tmp_path) as here:
        session, other = await here.held("one", 1), await here.held("two", 1)
        before = await session.history()
        async with other.stream(SAYINGS[1], **how(1)) as undisturbed, session.stream("Hello!", max_tokens=3) as reply:
            sup.exit(actor_of(here, "one"), sup.Killed())
            with pytest.raises(SessionInterrupted):
                await reply.turn()
            assert (await undisturbed.turn()).number == 2
        assert await session.history() == before
        assert (await session.say(SAYINGS[1], **how(1))).number == 2
        assert await session.history() == await other.history()


async def test_who_waits_for_a_turn_when_the_actor_is_killed_hears_of_it(tmp_path: Path) -> None:
    async with talking("cria", tmp_path) as here:
        session = await here.held("one", 1)
        async with session.stream("Hello!", max_tokens=3), trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(SessionInterrupted):
                    await session.say("And?")

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            sup.exit(actor_of(here, "one"), sup.Killed())
        assert (await session.say("And?", max_tokens=3)).number == 2


async def test_a_worker_that_dies_is_a_pause_in_the_turn(tmp_path: Path) -> None:
    arguments: dict[str, object] = {"max_tokens": 200, "ignore_eos": True, "seed": 5, "temperature": 0.8}
    async with talking("cria", tmp_path, isolation="process") as here:
        session, unbroken = await here.held("one", 2), await here.held("two", 2)
        async with session.stream("Hello!", **arguments) as reply:
            await reply.__anext__()
            pid = (await here.model.statistics()).worker_pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            turn = await reply.turn()
        assert (await here.model.statistics()).recoveries == 1
        assert turn.token_ids == (await unbroken.say("Hello!", **arguments)).token_ids
        await session.say(SAYINGS[2], **how(2))
        await unbroken.say(SAYINGS[2], **how(2))
        assert await session.history() == await unbroken.history()


async def test_a_session_outlives_its_model_in_the_runtime(tmp_path: Path) -> None:
    async with talking("cria", tmp_path) as here:
        session, unbroken = await here.held("one", 2), await here.held("two", 3)
        expected = await unbroken.history()
        await here.runtime.unload_model("model")
        with pytest.raises(ModelNotLoaded):
            await session.say("Hello!")
        again = await here.runtime.load_model(
            "cria", name="renamed", n_ctx=2048, n_seq_max=8, n_threads=1, isolation="thread", probe_seconds=0.0
        )
        session = await again.session("one")
        await session.say(SAYINGS[2], **how(2))
        assert await session.history() == expected


async def test_a_runtime_that_closes_ends_turns_and_leaves_the_session_as_it_was(tmp_path: Path) -> None:
    outcomes: list[PaddockError] = []

    async def say(session: paddock.Session) -> None:
        try:
            await session.say("Hello!", max_tokens=1500, ignore_eos=True)
        except PaddockError as error:
            outcomes.append(error)

    async with trio.open_nursery() as nursery, talking("cria", tmp_path) as here:
        session = await here.held("one", 1)
        before = await session.history()
        nursery.start_soon(say, session)
        nursery.start_soon(say, session)
        while not (await here.model.statistics()).running:
            await trio.sleep(0.001)
    assert len(outcomes) == 2
    assert {type(outcome) for outcome in outcomes} <= {
        RequestCancelled, RuntimeClosed, SessionInterrupted, ModelNotLoaded,
    }, outcomes  # fmt: skip
    for attempt in (session.say("Hello!"), session.history(), session.fork(), session.delete()):
        with pytest.raises(RuntimeClosed):
            await attempt
    async with talking("cria", tmp_path) as here:
        assert await (await here.model.session("one")).history() == before
