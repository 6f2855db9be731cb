"""One session: what is said, heard, kept, forked, rewound and forgotten."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio
from talking import GREEDY, SAYINGS, Talking, how, talking

import paddock
from paddock.errors import (
    ChatTemplateMissing,
    ContextOverflow,
    InvalidParameter,
    RequestCancelled,
    SessionBusy,
    SessionExists,
    SessionModelMismatch,
    SessionNotFound,
)
from paddock.sessions.server import MOST_WAITING

Scripted = Callable[..., Path]


@pytest.mark.parametrize("isolation", ["thread", "process"])
async def test_a_turn_goes_on_where_the_last_one_ended(isolation: str, tmp_path: Path) -> None:
    async with talking("cria", tmp_path, isolation=isolation) as here:
        session = await here.model.session("user-42", system="You are a friendly llama.")
        first = await session.say("Hello! Who are you?", max_tokens=40, seed=7)
        second = await session.say("Tell me a joke.", max_tokens=40, seed=7)
        assert (first.number, second.number) == (1, 2)
        assert first.continuation == paddock.Continuation("first", 0, 0)
        said = first.usage.prompt_tokens + first.usage.completion_tokens
        assert second.continuation == paddock.Continuation("extends", said, 0)
        assert second.usage.prompt_tokens > said
        assert [turn.messages[0]["content"] for turn in await session.history()] == [
            "Hello! Who are you?",
            "Tell me a joke.",
        ]
        assert await session.history() == (first, second)
        # The first turn is what the same messages give without a session.
        messages = [{"role": "system", "content": session.system}, {"role": "user", "content": "Hello! Who are you?"}]
        assert (await here.model.chat(messages, max_tokens=40, seed=7)).token_ids == first.token_ids


async def test_a_stream_says_what_say_says_and_is_recorded_at_its_end(tmp_path: Path) -> None:
    async with talking("cria", tmp_path) as here:
        said, streamed = await here.model.session("said"), await here.model.session("streamed")
        for number, text in enumerate(SAYINGS[:3]):
            turn = await said.say(text, **how(number))
            async with streamed.stream(text, **how(number)) as reply:
                deltas = [delta async for delta in reply]
                assert await reply.turn() == turn
                assert (await reply.result()).token_ids == turn.token_ids
            assert "".join(delta.text for delta in deltas) == turn.text
        assert await streamed.history() == await said.history()


async def test_a_reply_that_is_not_read_to_its_end_never_was(tmp_path: Path) -> None:
    async with talking("cria", tmp_path) as here:
        session = await here.held("one", 1)
        before = await session.history()
        async with session.stream("Tell me a story.", max_tokens=50) as reply:
            await reply.__anext__()
        async with session.stream("Tell me a story.", max_tokens=50, ignore_eos=True) as reply:
            reply.cancel()
            with pytest.raises(RequestCancelled):
                await reply.turn()
        with trio.move_on_after(0):
            await session.say("Hello!")
        with pytest.raises(InvalidParameter, match="max_token"):
            await session.say("Hello!", max_token=3)
        assert await session.history() == before
        assert (await session.say("Hello!", max_tokens=3)).number == 2


async def test_a_reply_can_be_cancelled_while_it_waits_for_the_turn_before_it(tmp_path: Path) -> None:
    async with talking("cria", tmp_path) as here:
        session = await here.model.session("one")
        async with session.stream("Hello!", max_tokens=3) as first:
            second = session.stream("And?", max_tokens=3)

            async def enter() -> None:
                with pytest.raises(RequestCancelled):
                    await second.__aenter__()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(enter)
                await trio.testing.wait_all_tasks_blocked()
                second.cancel()
            await first.turn()
        assert (await session.say("So?", max_tokens=3)).number == 2


async def test_turns_that_are_asked_for_at_once_happen_one_after_another(tmp_path: Path) -> None:
    async with talking("cria", tmp_path) as here:
        numbers = []

        async def say(handle: paddock.Session, text: str) -> None:
            numbers.append((await handle.say(text, max_tokens=5)).number)

        async with trio.open_nursery() as nursery:
            for text in SAYINGS:
                nursery.start_soon(say, await here.model.session("shared"), text)
        assert sorted(numbers) == [1, 2, 3, 4, 5, 6]
        history = await (await here.model.session("shared")).history()
        assert sorted(str(turn.messages[0]["content"]) for turn in history) == sorted(SAYINGS)


async def test_who_does_not_want_to_wait_hears_that_the_session_is_busy(tmp_path: Path) -> None:
    async with talking("cria", tmp_path) as here:
        session = await here.held("one", 1)
        hasty = await here.model.session("one", wait=False)
        async with session.stream("Hello!", max_tokens=3) as reply:
            for attempt in (hasty.say("Hi"), hasty.rewind(0), hasty.hibernate(), hasty.delete()):
                with pytest.raises(SessionBusy):
                    await attempt
            assert len(await hasty.history()) == 1
            await reply.turn()
        assert (await hasty.say("Hi", max_tokens=3)).number == 3


async def test_no_more_turns_wait_than_a_hundred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_WAITING == 100
    monkeypatch.setattr("paddock.sessions.server.MOST_WAITING", 3)
    async with talking("cria", tmp_path) as here:
        session = await here.model.session("one")
        async with session.stream("Hello!", max_tokens=3) as reply, trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(partial(session.say, "And?", max_tokens=3))
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(SessionBusy):
                await session.say("And?")
            assert (await reply.turn()).number == 1
            await reply.__aexit__(None, None, None)
        assert len(await session.history()) == 4


async def test_log_probabilities_are_told_and_not_kept(tmp_path: Path) -> None:
    async with talking("cria", tmp_path) as here:
        session = await here.model.session("one")
        turn = await session.say("Hello!", max_tokens=3, logprobs=1)
        assert turn.logprobs is not None
        assert len(turn.logprobs) == turn.usage.completion_tokens
        assert (await session.history())[0].logprobs is None


async def test_a_conversation_that_no_longer_fits_stays_as_it_was(tmp_path: Path) -> None:
    async with talking("cria", tmp_path, n_ctx=256) as here:
        session = await here.held("one", 2)
        before = await session.history()
        for long in ("word " * 250, "word " * 100_000):
            with pytest.raises(ContextOverflow):
                await session.say(long)
        with pytest.raises(ContextOverflow):
            await session.say("Hello!", max_tokens=250)
        assert await session.history() == before
        assert (await session.say("Hello!", max_tokens=5)).number == 3


async def test_a_fork_goes_its_own_way_from_any_turn(tmp_path: Path) -> None:
    async with talking("cria", tmp_path) as here:
        session = await here.held("one", 4)
        turns = await session.history()
        fork = await session.fork(2, id="two")
        assert await fork.history() == turns[:2]
        assert await fork.say(SAYINGS[2], **how(2)) == turns[2]
        other = await fork.fork(1)
        assert await other.say("Something else.", **how(9)) != turns[1]
        assert await session.history() == turns
        assert await (await session.fork(0)).history() == ()
        assert await (await session.fork()).history() == turns
        with pytest.raises(SessionExists):
            await session.fork(id="two")
        for at in (-1, 5, True, 1.0):
            with pytest.raises(InvalidParameter):
                await session.fork(at)  # type: ignore[arg-type]


async def test_what_was_rewound_can_be_said_again(tmp_path: Path) -> None:
    async with talking("cria", tmp_path) as here:
        session = await here.held("one", 4)
        turns = await session.history()
        await session.rewind(2)
        assert await session.history() == turns[:2]
        assert await session.say(SAYINGS[2], **how(2)) == turns[2]
        await session.rewind(0)
        assert await session.history() == ()
        assert await session.say(SAYINGS[0], **how(0)) == turns[0]
        for to in (2, -1, None):
            with pytest.raises(InvalidParameter):
                await session.rewind(to)  # type: ignore[arg-type]


async def test_a_session_that_was_deleted_is_gone_for_every_handle(tmp_path: Path) -> None:
    async with talking("cria", tmp_path) as here:
        session, other = await here.held("one", 2), await here.model.session("one")
        await session.delete()
        await session.delete()
        for attempt in (other.say("Hi"), other.history(), other.fork(), other.rewind(0), other.hibernate()):
            with pytest.raises(SessionNotFound):
                await attempt
        anew = await here.model.session("one", system="Be brief.")
        assert await anew.history() == ()


async def test_nobody_reaches_the_sessions_of_another_tenant(tmp_path: Path) -> None:
    async with talking("cria", tmp_path) as here:
        mine = await here.held("diary", 2, tenant="me")
        turns = await mine.history()
        yours = await here.model.session("diary", tenant="you")
        assert await yours.history() == ()
        await yours.say("Hello!", max_tokens=3)
        with pytest.raises(InvalidParameter):
            await yours.rewind(2)
        await yours.delete()
        assert await mine.history() == turns
        fork = await mine.fork(id="copy")
        assert fork.tenant == "me"
        assert await (await here.model.session("copy")).history() == ()


async def test_tenants_share_no_block(tmp_path: Path) -> None:
    long = "Once upon a time there was a llama. " * 20
    async with talking("cria", tmp_path) as here:

        async def cached(tenant: str) -> int:
            session = await here.model.session(f"of {tenant}", tenant=tenant)
            turn = await session.say(long, max_tokens=2)
            await here.settled()
            return turn.usage.cached_tokens

        assert await cached("default") == 0
        assert await cached("me") == 0
        assert await cached("you") == 0
        again = await (await here.model.session("again", tenant="me")).say(long, max_tokens=2)
        assert again.usage.cached_tokens >= 64


@pytest.mark.parametrize("bad", ["", "x" * 201, "line\nbreak", "\ud800", "nul\0", 7, None])
async def test_an_id_or_tenant_that_is_no_name_is_refused(bad: object, tmp_path: Path) -> None:
    async with talking("cria", tmp_path) as here:
        with pytest.raises(InvalidParameter):
            await here.model.session(bad)  # type: ignore[arg-type]
        with pytest.raises(InvalidParameter):
            await here.model.session("one", tenant=bad)  # type: ignore[arg-type]
        assert not (tmp_path / "state").exists()


async def test_any_printable_name_will_do(tmp_path: Path) -> None:
    async with talking("cria", tmp_path) as here:
        names = ("../../etc/passwd", "a/b", "日本 🦙", "%s' OR 1=1 --", "x" * 200, "default")
        for name in names:
            await here.held(name, 1)
        for name in names:
            assert len(await (await here.model.session(name)).history()) == 1
    assert [path.name for path in files_in(tmp_path)] == ["sessions.sqlite3"]


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_a_session_belongs_to_one_model_file(
    tiny_model_path: Path, scripted_model: Scripted, tmp_path: Path
) -> None:
    async with talking("cria", tmp_path) as here:
        await here.held("one", 1)
        other = await here.runtime.load_model(
            tiny_model_path, n_ctx=512, n_seq_max=1, isolation="thread", probe_seconds=0.0
        )
        with pytest.raises(SessionModelMismatch):
            await other.session("one")
        session = await here.model.session("one")
        await session.delete()
        await other.session("one")
        with pytest.raises(SessionModelMismatch):
            await session.say("Hello!")
        bare = await here.runtime.load_model(
            scripted_model(b"x", chat_template=None), n_ctx=64, n_seq_max=1, isolation="thread", probe_seconds=0.0
        )
        with pytest.raises(ChatTemplateMissing):
            await bare.session("two")


async def test_system_message_and_tools_stay_what_they_were(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "get_weather", "description": "The weather in a city."}}
    async with talking("cria", tmp_path) as here:
        session = await here.model.session("one", system="You are a llama.", tools=[tool])
        turn = await session.say("What is the weather in Lima?", max_tokens=40, seed=1, **GREEDY)
    async with talking("cria", tmp_path) as here:
        session = await here.model.session("one")
        assert session.system == "You are a llama."
        await here.model.session("one", system="You are a llama.", tools=[tool])
        with pytest.raises(InvalidParameter, match="system"):
            await here.model.session("one", system="You are a goat.")
        with pytest.raises(InvalidParameter, match="tools"):
            await here.model.session("one", tools=[tool, tool])
        await session.rewind(0)
        assert await session.say("What is the weather in Lima?", max_tokens=40, seed=1, **GREEDY) == turn


async def test_hibernating_ends_the_actor_and_the_next_turn_goes_on(tmp_path: Path) -> None:
    async with talking("cria", tmp_path, disk=True) as here:
        unbroken = await here.held("unbroken", 4)
        session = await here.held("one", 3)
        assert await actors(here) == 2
        await session.hibernate()
        while await actors(here) > 1:
            await trio.sleep(0.001)
        await session.say(SAYINGS[3], **how(3))
        assert await session.history() == await unbroken.history()


async def actors(here: Talking) -> int:
    (sessions,) = [child for child in (await here.runtime.tree()).children if child.id == "sessions"]
    return len(sessions.children)


async def test_the_actor_of_a_session_that_nobody_uses_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paddock.sessions.server.IDLE_SECONDS", 0.01)
    async with talking("cria", tmp_path) as here:
        session = await here.held("one", 1)
        while await actors(here):
            await trio.sleep(0.001)
        assert (await session.say("Hello!", max_tokens=3)).number == 2


async def test_a_runtime_without_sessions_has_no_file_and_no_process_for_them(tmp_path: Path) -> None:
    async with talking("cria", tmp_path) as here:
        await here.model.complete("Hello", max_tokens=2)
        assert "sessions" not in [child.id for child in (await here.runtime.tree()).children]
    assert not (tmp_path / "state").exists()
