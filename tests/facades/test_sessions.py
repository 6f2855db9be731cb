"""Sessions are the same from trio, asyncio and threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flavours import FLAVOURS, Flavour

import paddock
from paddock.errors import RequestCancelled, SessionBusy, SessionNotFound

Options = dict[str, Any]


def config(folder: Path) -> paddock.RuntimeConfig:
    return paddock.RuntimeConfig(state_dir=folder / "state")


def test_a_conversation_goes_on_from_one_interface_to_the_next(tmp_path: Path, small: Options) -> None:
    async def scenario(flavour: Flavour, number: int) -> tuple[paddock.Turn, ...]:
        async with flavour.open_runtime(config(tmp_path)) as runtime:
            model = await runtime.load_model("cria", **small)
            session = await model.session("one", system="You are a llama.")
            assert (session.id, session.tenant, session.system) == ("one", "default", "You are a llama.")
            turn = await session.say("Tell me a joke.", max_tokens=10, seed=number)
            history: tuple[paddock.Turn, ...] = await session.history()
            assert history[-1] == turn
            return history

    histories = [flavour.run(scenario, flavour, number) for number, flavour in enumerate(FLAVOURS)]
    assert [len(history) for history in histories] == [1, 2, 3]
    assert histories[2][:2] == histories[1]
    assert histories[1][:1] == histories[0]


def test_all_that_a_session_can_do(flavour: Flavour, tmp_path: Path, small: Options) -> None:
    async def scenario() -> None:
        async with flavour.open_runtime(config(tmp_path)) as runtime:
            model = await runtime.load_model("cria", **small)
            session = await model.session("one")
            async with session.stream("Hello!", max_tokens=10, seed=1) as reply:
                deltas = [delta async for delta in reply]
                turn = await reply.turn()
                assert (await reply.result()).token_ids == turn.token_ids
                assert (reply.seed, reply.finished, reply.model) == (1, True, "cria")
            assert "".join(delta.text for delta in deltas) == turn.text
            async with session.stream("Again.", max_tokens=10, seed=1) as reply:
                taken = await reply.receive_many()
                while more := await reply.receive_many():
                    taken += more
            assert len(await session.history()) == 2
            fork = await session.fork(1)
            assert await fork.history() == (turn,)
            await session.rewind(1)
            await session.hibernate()
            assert await session.history() == (turn,)
            await session.delete()
            with pytest.raises(SessionNotFound):
                await session.history()

    flavour.run(scenario)


def test_a_reply_can_be_cancelled_and_a_busy_session_says_so(flavour: Flavour, tmp_path: Path, small: Options) -> None:
    async def scenario() -> None:
        async with flavour.open_runtime(config(tmp_path)) as runtime:
            model = await runtime.load_model("cria", **small)
            session, hasty = await model.session("one"), await model.session("one", wait=False)
            async with session.stream("Hello!", max_tokens=400, ignore_eos=True) as reply:
                with pytest.raises(SessionBusy):
                    await hasty.say("Hello!")
                reply.cancel()
                with pytest.raises(RequestCancelled):
                    await reply.turn()
            assert await hasty.history() == ()
            assert (await hasty.say("Hello!", max_tokens=3)).number == 1

    flavour.run(scenario)
