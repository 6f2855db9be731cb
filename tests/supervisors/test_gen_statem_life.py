"""Answers, ends and introspection of a state machine: rows F16 to F20."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from actors import Broken
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
    one, two = sup.send_request(pid, "wait"), sup.send_request(pid, "both")
    assert (await one.wait(), await two.wait()) == ("first", "second")
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
    if isinstance(wrong, sup.KeepState):
        assert repr(wrong.actions[0]) in str(reason.exception)


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


async def test_f20_status_shows_queue_postponed_and_timers(node: sup.Node) -> None:
    pid = await node.start(Machine, lambda *_: keep_state(sup.Postpone()), sup.GenericTimeout("t", 50))
    sup.cast(pid, "p")
    await settle()
    status = await sup.get_status(pid)
    assert status["state"] == "one"
    assert "p" in str(status["postponed"])
    assert "'t'" in str(status["timers"])
