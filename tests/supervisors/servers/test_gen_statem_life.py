"""Answers, ends and introspection of a state machine: rows F16 to F20."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from actors import Broken, in_process
from scripted_machine import Machine, stay

import supervisors as sup
from supervisors import EventType, keep_state, stop_machine
from supervisors.testing import settle


async def test_f16_replies_go_out_in_order_and_before_the_exit(node: sup.Node) -> None:
    asked: list[sup.From] = []

    def handle(machine: Machine, event_type: EventType, content: Any, state: Any) -> Any:
        if event_type != EventType.CALL:
            return keep_state()
        asked.append(event_type.from_)
        if content == "last":
            return stop_machine("done", *[sup.ReplyTo(from_, n) for n, from_ in enumerate(asked[1:], 1)])
        if content == "both":
            return keep_state(sup.ReplyTo(asked.pop(0), "first"), sup.ReplyTo(asked.pop(0), "second"))
        return keep_state()

    pid = await node.start(Machine, handle)
    seen: list[sup.DebugEvent] = []
    await sup.trace(pid, seen.append)
    one, two = sup.send_request(pid, "wait"), sup.send_request(pid, "both")
    assert (await one.wait(), await two.wait()) == ("first", "second")
    assert [event.value for event in seen if isinstance(event, sup.ReplyOut)] == ["first", "second"]
    left, *answered = [sup.send_request(pid, content) for content in ("wait", "wait", "last")]
    assert [await request.wait() for request in answered] == [1, 2]
    with pytest.raises(sup.ServerExited) as exited:
        await left.wait()
    assert exited.value.reason == "done"


async def test_f16_reply_error_action_raises_in_the_caller(node: sup.Node) -> None:
    def handle(machine: Machine, event_type: EventType, content: Any, state: Any) -> Any:
        return keep_state(sup.ReplyError(event_type.from_, Broken("refused")))

    pid = await node.start(Machine, handle)
    with pytest.raises(Broken, match="refused"):
        await sup.call(pid, 1)
    assert pid.alive


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        "nonsense",
        keep_state("no action"),  # type: ignore[arg-type]
        keep_state(sup.StateTimeout(-1)),
        keep_state(sup.StateTimeout(float("nan"))),
        keep_state(sup.GenericTimeout("n", "soon")),  # type: ignore[arg-type]
        keep_state(sup.NextEvent("cast", 1)),  # type: ignore[arg-type]
        stop_machine("x", sup.Postpone()),  # type: ignore[arg-type]
    ],
)
async def test_f17_wrong_return_action_or_timeout_crashes_naming_it(node: sup.Node, wrong: Any) -> None:
    pid = await node.start(Machine, lambda *_: wrong)
    sup.cast(pid, 1)
    reason = await sup.wait_down(pid)
    assert isinstance(reason, sup.Crashed)
    assert isinstance(reason.exception, (sup.BadReturnValue, sup.BadAction))
    named = wrong.actions[0] if isinstance(wrong, sup.KeepState) else wrong
    named = wrong.replies[0] if isinstance(wrong, sup.StopMachine) else named
    assert repr(named) in str(reason.exception)


async def test_f17_state_without_a_function_crashes(node: sup.Node) -> None:
    class Lost(sup.GenStatem):
        async def init(self) -> Any:
            return ("nowhere",)

    pid = await node.start(Lost)
    sup.cast(pid, 1)
    reason = await sup.wait_down(pid)
    assert isinstance(reason, sup.Crashed)
    assert "nowhere" in str(reason.exception)


async def test_f18_starting_stopping_and_calling_are_as_in_gen_server(node: sup.Node, reports: list[object]) -> None:
    class Ending(sup.GenStatem):
        def __init__(self, result: Any) -> None:
            self.result = result

        async def init(self) -> Any:
            if isinstance(self.result, Exception):
                raise self.result
            return self.result

    assert await node.start(Ending, sup.IGNORE, name="m") is sup.IGNORE
    for result in (sup.Stop("reason"), Broken("init"), "nonsense", ()):
        with pytest.raises(sup.StartFailed):
            await node.start(Ending, result, name="m")
        assert node.registry.whereis("m") is None
    assert reports == []
    pid = await node.start(Machine, stay, name="m")
    via = node.registry.via("m")
    with pytest.raises(sup.AlreadyStarted):
        await node.start(Machine, stay, name="m")
    with pytest.raises(sup.CallTimeout):
        await sup.call(via, "never answered", timeout=1)
    data = (await sup.get_state(via))[1]
    await sup.stop(via, sup.Shutdown())
    assert data[-1] == ("terminate", sup.Shutdown(), "one")
    assert pid.exit_reason == sup.Shutdown()
    with pytest.raises(sup.NoProc):
        await sup.call(via, 1)
    crashing = await node.start(Machine, lambda *_: 1 / 0)
    with pytest.raises(sup.ServerExited):
        await sup.call(crashing, 1)
    (report,) = reports
    assert isinstance(report, sup.CrashReport)
    assert isinstance(report.state, dict)
    assert report.state["state"] == "one"


async def test_f18_stop_overtakes_an_endless_chain_of_inserted_events(node: sup.Node) -> None:
    forever = keep_state(sup.NextEvent(EventType.INTERNAL, "again"))
    pid = await node.start(Machine, lambda *_: forever)
    sup.cast(pid, "go")
    for _ in range(3):
        await trio.lowlevel.checkpoint()
    await sup.stop(pid)
    assert pid.exit_reason == sup.Normal()


async def test_f19_get_state_and_replace_state(node: sup.Node) -> None:
    def handle(machine: Machine, event_type: EventType, content: Any, state: Any) -> Any:
        return keep_state(sup.ReplyTo(event_type.from_, state))

    def raising(_: Any) -> Any:
        raise Broken("replacer")

    pid = await node.start(Machine, handle)
    assert await sup.get_state(pid) == ("one", [])
    assert await sup.replace_state(pid, lambda old: ("two", ["new"])) == ("two", ["new"])
    await sup.suspend(pid)
    with pytest.raises(Broken):
        await sup.replace_state(pid, raising)
    assert await sup.get_state(pid) == ("two", ["new"])
    await sup.replace_state(pid, lambda old: ("three", []))
    await sup.resume(pid)
    assert await sup.call(pid, "state?") == "three"


async def test_f20_status_and_crash_report_show_queue_postponed_timers_and_log(
    node: sup.Node, reports: list[object]
) -> None:
    def handle(machine: Machine, event_type: EventType, content: Any, state: Any) -> Any:
        if content == "crash":
            raise Broken("crash")
        if content == "insert":
            return keep_state(
                sup.NextEvent(EventType.INTERNAL, "crash"),
                sup.NextEvent(EventType.INTERNAL, "behind it"),
                sup.StateTimeout(0, "at once"),
            )
        return keep_state(sup.Postpone())

    pid = await node.start(Machine, handle, sup.GenericTimeout("t", 50), sup.StateTimeout(20), state="here")
    await sup.log_events(pid, 5)
    sup.cast(pid, "put off")
    await settle()
    status = await sup.get_status(pid)
    assert (status["pid"], status["module"], status["state"], status["suspended"]) == (pid, "Machine", "here", False)
    assert [event.content for event in status["postponed"]] == ["put off"]  # type: ignore[attr-defined]
    assert status["events"] == ()
    assert status["timers"] == {EventType.GENERIC_TIMEOUT("t"): 50, EventType.STATE_TIMEOUT: 20}
    assert status["log"] == ("0.000000 got cast 'put off'", "0.000000 postponed cast 'put off'")
    await sup.suspend(pid)
    sup.cast(pid, "insert")
    sup.cast(pid, "in the mailbox")
    await settle()
    assert (await sup.get_status(pid))["queued"] == 2
    await sup.resume(pid)
    await sup.wait_down(pid)
    (report,) = reports
    assert isinstance(report, sup.CrashReport)
    assert isinstance(report.state, dict)
    assert report.state["state"] == "here"
    assert [event.content for event in report.state["events"]] == ["behind it"]
    assert [event.content for event in report.state["postponed"]] == ["put off"]
    assert report.state["timers"] == {EventType.GENERIC_TIMEOUT("t"): 50, EventType.STATE_TIMEOUT: 0}
    assert report.queue_length == 1
    assert report.log[-2:] == ("0.000000 got cast 'insert'", "0.000000 no reply")
    for word in ("behind it", "put off", "generic_timeout", "got cast", "here"):
        assert word in report.format()


async def test_f18_start_link_monitor_timeout_and_ignored_name(node: sup.Node) -> None:
    class Slow(Machine):
        async def init(self) -> Any:
            await trio.sleep(3)
            return ("one", [])

    with pytest.raises(sup.StartTimeout):
        await node.start(Slow, stay, name="m", timeout=1)
    assert node.registry.whereis("m") is None
    began = trio.current_time()
    assert (await node.start(Slow, stay, name="m")).ready
    assert trio.current_time() - began == 3, "ready when start returns"

    async def starter() -> None:
        linked = await sup.start_link(Machine, stay)
        monitored, ref = await sup.start_monitor(Machine, stay)
        sup.exit(monitored, "bye")
        assert (await sup.receive()) == sup.Down(ref, monitored, "bye")
        sup.trap_exits()
        sup.exit(linked, "bye")
        assert await sup.receive() == sup.ExitSignal(linked, "bye")

    await in_process(node, starter)


@pytest.mark.parametrize("how", ["crash", "stop", "kill"])
async def test_f18_end_of_the_machine_fails_its_callers_at_once(node: sup.Node, how: str) -> None:
    def handle(machine: Machine, event_type: EventType, content: Any, state: Any) -> Any:
        if content != "end":
            return keep_state(sup.Postpone())
        if how == "crash":
            raise Broken("handler")
        return sup.Stop("stopped") if how == "stop" else keep_state()

    pid = await node.start(Machine, handle)
    requests = [sup.send_request(pid, content) for content in ("postponed", "end", "queued")]
    if how == "kill":
        await settle()
        sup.exit(pid, sup.Killed())
    for request in requests:
        with pytest.raises(sup.ServerExited) as exited:
            await request.wait()
        assert exited.value.reason == pid.exit_reason
    if how != "crash":
        assert pid.exit_reason == ("stopped" if how == "stop" else sup.Killed())


async def test_f18_stop_of_one_that_dies_otherwise_or_hangs(node: sup.Node) -> None:
    class Hanging(Machine):
        async def terminate(self, reason: object, state: Any) -> None:
            await trio.sleep_forever()

    class Crashing(Machine):
        async def terminate(self, reason: object, state: Any) -> None:
            raise Broken("terminate")

    crashing = await node.start(Crashing, stay)
    with pytest.raises(sup.ServerExited):
        await sup.stop(crashing)
    assert isinstance(crashing.exit_reason, sup.Crashed)
    await node.start(Hanging, stay, name="m")
    with pytest.raises(sup.CallTimeout):
        await sup.stop(node.registry.via("m"), timeout=2)


async def test_f18_terminate_runs_when_the_parent_of_one_that_traps_exits_ends(node: sup.Node) -> None:
    class Trapping(Machine):
        async def init(self) -> Any:
            sup.trap_exits()
            return ("one",)

    started: list[sup.Pid[Any]] = []
    logs: list[Any] = []

    async def starter() -> None:
        started.append(await sup.start_link(Trapping, stay))
        logs.append((await sup.get_state(started[0]))[1])
        raise sup.Exit("gone")

    await sup.wait_down(node.spawn(starter))
    assert await sup.wait_down(started[0]) == "gone"
    assert logs == [[("terminate", "gone", "one")]]


async def test_f17_machine_without_the_callback_it_needs_crashes(node: sup.Node) -> None:
    class NoInit(sup.GenStatem):
        pass

    class NoHandler(sup.GenStatem):
        callback_mode = "handle_event_function"

        async def init(self) -> Any:
            return ("one",)

    class NoActions(NoHandler):
        async def init(self) -> Any:
            return ("one", "two")

    for kind in (NoInit, NoActions):
        with pytest.raises(sup.StartFailed) as failed:
            await node.start(kind)
        assert isinstance(failed.value.__cause__, (NotImplementedError, sup.BadAction))
    pid = await node.start(NoHandler)
    sup.cast(pid, 1)
    reason = await sup.wait_down(pid)
    assert isinstance(reason, sup.Crashed)
    assert isinstance(reason.exception, NotImplementedError)


async def test_f16_a_stop_may_fail_a_caller_first(node: sup.Node) -> None:
    def handle(machine: Machine, event_type: EventType, content: Any, state: Any) -> Any:
        return stop_machine("done", sup.ReplyError(event_type.from_, Broken("refused")))

    pid = await node.start(Machine, handle)
    with pytest.raises(Broken, match="refused"):
        await sup.call(pid, 1)
    assert await sup.wait_down(pid) == "done"


def test_only_a_call_has_somebody_to_answer_to() -> None:
    assert not EventType.CAST.has_from
    with pytest.raises(LookupError, match="cast"):
        _ = EventType.CAST.from_
