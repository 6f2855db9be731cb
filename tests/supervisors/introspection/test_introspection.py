"""System messages to running servers: rows Y01 to Y03."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
from actors import Broken, Echo, in_process, wait_forever, worker
from actors import World as Workers
from scripted_machine import Machine
from scripted_server import Scripted

import supervisors as sup
from supervisors import EventType, keep_state, next_state
from supervisors.testing import settle


def answer(machine: Machine, event_type: EventType, content: Any, state: Any) -> Any:
    """Calls are answered with what they ask; "go" goes, "later" is postponed until then."""
    if event_type == EventType.CALL:
        return keep_state(sup.ReplyTo(event_type.from_, content))
    if content == "later" and state == "one":
        return keep_state(sup.Postpone())
    return next_state("two") if content == "go" else keep_state()


async def start(node: sup.Node, kind: str, by: str) -> Any:
    """A server that echoes calls, by its pid or its name."""
    if kind == "server":
        pid: sup.Pid[Any] = await node.start(Scripted, name="x")
    else:
        pid = await node.start(Machine, answer, name="x")
    return pid if by == "pid" else node.registry.via("x")


KINDS = pytest.mark.parametrize("kind", ["server", "machine"])
BY = pytest.mark.parametrize("by", ["pid", "name"])


@KINDS
@BY
async def test_y01_suspended_server_answers_system_messages_only(node: sup.Node, kind: str, by: str) -> None:
    target = await start(node, kind, by)
    await sup.suspend(target)
    await sup.suspend(target)
    assert (await sup.get_status(target))["suspended"] is True
    with pytest.raises(sup.CallTimeout):
        await sup.call(target, "lost", timeout=1)
    state = await sup.get_state(target)
    assert isinstance(state, Scripted) if kind == "server" else state[0] == "one"
    request = sup.send_request(target, "kept")
    sup.cast(target, "cast")
    await settle()
    assert not request.done
    await sup.resume(target)
    assert await request.wait() == "kept"
    assert (await sup.get_status(target))["queued"] == 0
    await sup.suspend(target)
    await sup.stop(target, "stopped", timeout=1)


async def test_y01_suspended_server_that_traps_exits_ends_with_its_parent(node: sup.Node) -> None:
    seen: list[object] = []
    started: list[sup.Pid[Any]] = []

    def init(server: Scripted) -> None:
        sup.trap_exits()

    async def parent() -> None:
        started.append(await sup.start_link(Scripted, init=init, terminate=lambda _, reason: seen.append(reason)))
        await sup.suspend(started[0])
        raise sup.Exit("gone")

    node.spawn(parent)
    await settle()
    assert started[0].exit_reason == "gone"
    assert seen == ["gone"]


@KINDS
@BY
async def test_y02_log_keeps_the_last_events_with_the_sender(node: sup.Node, kind: str, by: str) -> None:
    target = await start(node, kind, by)
    pid = sup.whereis(target)
    assert pid is not None
    assert await sup.logged_events(target) == ()
    await sup.log_events(target, 3)

    async def client() -> sup.Pid[Any]:
        assert await sup.call(target, "question") == "question"
        sup.cast(target, "one way")
        sup.send(target, "message")
        await settle()
        return sup.self()

    await trio.sleep(2)
    caller = await in_process(node, client)
    assert await sup.logged_events(target) == (
        sup.NoReplyOut(pid, 2.0),
        sup.MessageIn(pid, 2.0, "info", "message", caller),
        sup.NoReplyOut(pid, 2.0),
    )
    await sup.log_events(target, 10)
    await in_process(node, client)
    events = await sup.logged_events(target)
    assert [type(event).__name__ for event in events] == [
        "NoReplyOut",
        "MessageIn",
        "NoReplyOut",
        *("MessageIn", "ReplyOut", "MessageIn", "NoReplyOut", "MessageIn", "NoReplyOut"),
    ]
    question, reply = events[3:5]
    assert isinstance(question, sup.MessageIn)
    assert isinstance(reply, sup.ReplyOut)
    assert (question.kind, question.message, reply.value, reply.failed) == ("call", "question", "question", False)
    assert question.sender is not None
    assert reply.to is question.sender
    assert question.sender is not caller, "another client"
    await sup.log_events(target, 2)
    assert await sup.logged_events(target) == events[-2:]
    await sup.log_events(target, 0)
    assert await sup.logged_events(target) == ()
    assert pid._loop is not None
    assert pid._loop.debug is None, "off it costs nothing"
    with pytest.raises(ValueError, match="size"):
        await sup.log_events(target, -1)


@KINDS
@BY
async def test_y02_trace_goes_to_the_log_or_a_function(
    node: sup.Node, kind: str, by: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "supervisors.trace")
    target = await start(node, kind, by)
    await sup.trace(target)

    async def client() -> sup.Pid[Any]:
        await sup.call(target, "question")
        sup.cast(target, "one way")
        await settle()
        return sup.self()

    caller = await in_process(node, client)
    pid = sup.whereis(target)
    assert [record.getMessage() for record in caplog.records] == [
        f"{pid!r} got call 'question' from {caller!r}",
        f"{pid!r} answered {caller!r} with 'question'",
        f"{pid!r} got cast 'one way' from {caller!r}",
        f"{pid!r} no reply",
    ]
    seen: list[sup.DebugEvent] = []
    await sup.trace(target, seen.append)
    await in_process(node, client)
    assert len(seen) == 4
    assert len(caplog.records) == 4
    await sup.trace(target, False)
    await in_process(node, client)
    assert len(seen) == 4
    with pytest.raises(TypeError, match="trace goes to"):
        await sup.trace(target, "stdout")  # type: ignore[arg-type]


@KINDS
@BY
async def test_y02_statistics_count_what_comes_in_and_goes_out(node: sup.Node, kind: str, by: str) -> None:
    target = await start(node, kind, by)
    assert await sup.get_statistics(target) is None
    await trio.sleep(1)
    await sup.collect_statistics(target)
    for n in range(3):
        await sup.call(target, n)
    for n in range(2):
        sup.cast(target, n)
    sup.send(target, "message")
    await trio.sleep(1)
    statistics = await sup.get_statistics(target)
    assert statistics == sup.ServerStatistics(since=1, now=2, calls=3, casts=2, infos=1, timeouts=0, replies=3)
    assert statistics.messages_in == 6
    await sup.collect_statistics(target)
    await sup.call(target, 1)
    anew = await sup.get_statistics(target)
    assert anew is not None
    assert (anew.since, anew.calls) == (2, 1)
    await sup.log_events(target)
    assert (await sup.get_statistics(target)) == anew, "what is observed in other ways does not disturb it"
    await sup.collect_statistics(target, False)
    assert await sup.get_statistics(target) is None
    await sup.no_debug(target)
    assert await sup.logged_events(target) == ()


@KINDS
@BY
async def test_y03_debug_function_is_installed_and_removed(node: sup.Node, kind: str, by: str) -> None:
    target = await start(node, kind, by)
    seen: list[tuple[str, Any]] = []

    def note(event: sup.DebugEvent, state: Any) -> None:
        seen.append((type(event).__name__, state))

    await sup.install_debug(target, note)
    await sup.install_debug(target, note)
    await sup.call(target, 1)
    assert [name for name, _ in seen] == ["MessageIn", "ReplyOut"]
    assert seen[0][1] == await sup.get_state(target)
    await sup.remove_debug(target, note)
    await sup.remove_debug(target, note)
    await sup.call(target, 1)
    assert len(seen) == 2


@KINDS
async def test_y03_debug_function_that_raises_or_is_done_is_dropped_and_the_server_lives(
    node: sup.Node, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    target = await start(node, kind, "pid")
    seen: list[str] = []

    def raising(event: sup.DebugEvent, state: Any) -> None:
        seen.append("raising")
        raise Broken("debug function")

    def once(event: sup.DebugEvent, state: Any) -> bool:
        seen.append("once")
        return True

    def itself(event: sup.DebugEvent, state: Any) -> bool:
        seen.append("itself")
        target._loop.debug.functions.remove(itself)
        return True

    def tracer(event: sup.DebugEvent) -> None:
        seen.append("tracer")
        raise Broken("trace function")

    for function in (raising, once, itself):
        await sup.install_debug(target, function)
    await sup.trace(target, tracer)
    assert [await sup.call(target, n) for n in range(3)] == [0, 1, 2]
    assert seen == ["tracer", "raising", "once", "itself"]
    assert "debug function" in caplog.text
    assert "trace function" in caplog.text
    assert target._loop.debug is None


async def test_deferred_and_failed_answers_are_events_late_ones_and_those_of_the_dead_are_not(node: sup.Node) -> None:
    waiting: list[sup.From] = []

    def keep(server: Scripted, request: Any, from_: sup.From) -> Any:
        waiting.append(from_)
        return sup.NO_REPLY

    pid = await node.start(Scripted, call=keep)
    seen: list[sup.DebugEvent] = []
    await sup.trace(pid, seen.append)
    requests = [sup.send_request(pid, n) for n in range(4)]
    await settle()
    failure = Broken("refused")
    sup.reply(waiting[0], "late")
    sup.reply(waiting[0], "twice")
    sup.reply_error(waiting[1], failure)
    requests[2].abandon()
    sup.reply(waiting[2], "nobody waits")
    replies = [(event.value, event.failed) for event in seen if isinstance(event, sup.ReplyOut)]
    assert replies == [("late", False), (failure, True)]
    assert sum(isinstance(event, sup.NoReplyOut) for event in seen) == 4
    await sup.trace(pid, False)
    sup.reply(waiting[3], "nobody observes")
    assert await requests[3].wait() == "nobody observes"
    await sup.trace(pid, seen.append)
    last = sup.send_request(pid, 4)
    await settle()
    count = len(seen)
    sup.exit(pid, sup.Killed())
    with pytest.raises(sup.ServerExited):
        await last.wait()
    assert len(seen) == count


async def test_continues_and_timeouts_of_a_server_are_events(node: sup.Node) -> None:
    callbacks = {"cast": lambda *_: sup.Continue("go on"), "continue": lambda *_: sup.Timeout(5)}
    pid = await node.start(Scripted, **callbacks)
    seen: list[sup.DebugEvent] = []
    await sup.trace(pid, seen.append)
    await sup.collect_statistics(pid)
    sup.cast(pid, "begin")
    await trio.sleep(6)
    taken = [(event.kind, event.message, event.at) for event in seen if isinstance(event, sup.MessageIn)]
    assert taken == [("cast", "begin", 0), ("continue", "go on", 0), ("timeout", "timeout", 5)]
    statistics = await sup.get_statistics(pid)
    assert statistics is not None
    assert statistics.timeouts == 1
    await sup.stop(pid)
    assert isinstance(seen[-1], sup.MessageIn)
    assert seen[-1].kind == "stop"


async def test_changes_of_state_postponed_events_and_timeouts_of_a_machine_are_events(
    node: sup.Node, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "supervisors.trace")
    pid = await node.start(Machine, answer, sup.StateTimeout(1, "tick"), sup.GenericTimeout("g", 7, "tock"))
    seen: list[sup.DebugEvent] = []

    def note(event: sup.DebugEvent, state: Any) -> None:
        seen.append(event)

    await sup.install_debug(pid, note)
    await sup.trace(pid)
    await trio.sleep(2)
    sup.cast(pid, "later")
    sup.cast(pid, "go")
    await trio.sleep(10)
    assert seen == [
        sup.MessageIn(pid, 1, "state_timeout", "tick"),
        sup.NoReplyOut(pid, 1),
        sup.MessageIn(pid, 2, "cast", "later", None),
        sup.EventPostponed(pid, 2, "cast", "later"),
        sup.MessageIn(pid, 2, "cast", "go", None),
        sup.NoReplyOut(pid, 2),
        sup.StateChange(pid, 2, "one", "two"),
        sup.NoReplyOut(pid, 2),
        sup.MessageIn(pid, 7, "generic_timeout", "tock"),
        sup.NoReplyOut(pid, 7),
    ]
    assert "postponed cast 'later'" in caplog.text
    assert "state 'one' -> 'two'" in caplog.text


@pytest.mark.parametrize("kind", [sup.Supervisor, sup.DynamicSupervisor])
async def test_supervisors_can_be_observed_and_not_suspended(node: sup.Node, kind: Any) -> None:
    pid = await node.start(kind)
    seen: list[sup.DebugEvent] = []
    await sup.trace(pid, seen.append)
    await sup.log_events(pid)
    await sup.collect_statistics(pid)
    child = await sup.start_child(pid, worker(Workers(), "a"))
    assert [type(event).__name__ for event in seen] == ["MessageIn", "MessageIn", "ReplyOut"]
    assert isinstance(seen[1], sup.MessageIn)
    assert (seen[1].kind, seen[1].message) == ("child_ready", child)
    assert isinstance(seen[2], sup.ReplyOut)
    assert seen[2].value is child
    statistics = await sup.get_statistics(pid)
    assert statistics is not None
    assert (statistics.calls, statistics.replies) == (1, 1)
    status = await sup.get_status(pid)
    assert await sup.logged_events(pid) == tuple(seen)
    assert status["log"] == tuple(f"0.000000 {event.describe(lambda message: message)}" for event in seen)
    assert status["state"] == await sup.get_state(pid)
    for refused in (sup.suspend(pid), sup.replace_state(pid, lambda _: None)):
        with pytest.raises(TypeError, match="supervisor"):
            await refused
    await sup.resume(pid)
    assert (await sup.get_status(pid))["suspended"] is False


async def test_an_unexpected_message_to_a_traced_supervisor_is_shown(
    node: sup.Node, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "supervisors.trace")
    pid = await node.start(sup.Supervisor)
    await sup.trace(pid)
    sup.cast(pid, "what is this")
    await settle()
    assert "got cast 'what is this'" in caplog.text


async def test_a_plain_process_and_a_dead_one_have_no_loop_to_ask(node: sup.Node) -> None:
    plain = node.spawn(wait_forever)
    with pytest.raises(sup.NotAServer) as refused:
        await sup.get_state(plain)
    assert refused.value.target is plain
    pid = await node.start(Echo)
    await sup.stop(pid)
    for ask in (sup.get_state, sup.trace, sup.get_statistics, sup.no_debug, sup.suspend):
        with pytest.raises(sup.NoProc):
            await ask(pid)
        with pytest.raises(sup.NoProc):
            await ask(node.registry.via("nobody"))


async def test_a_server_that_is_not_ready_answers_when_it_is(node: sup.Node) -> None:
    async def slow(server: Scripted) -> None:
        await trio.sleep(3)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: node.start(Scripted, init=slow, name="slow"))
        await settle()
        assert isinstance(await sup.get_state(node.registry.via("slow")), Scripted)
    assert trio.current_time() == 3


async def test_replacing_the_server_object_moves_the_server_to_it(node: sup.Node) -> None:
    pid = await node.start(Scripted)
    new = Scripted(call=lambda *_: sup.Reply("new"))
    assert await sup.replace_state(pid, lambda old: new) is new
    assert await sup.call(pid, "old") == "new"
    with pytest.raises(TypeError, match="server object"):
        await sup.replace_state(pid, lambda old: "no server")
    assert await sup.call(pid, "old") == "new"
