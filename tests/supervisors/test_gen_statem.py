"""Rows F01 to F19 of the conformance list."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import trio
from actors import Broken

import supervisors as sup
from supervisors import EventType, keep_state, next_state, repeat_state, stop_machine
from supervisors.testing import settle

Handler = Callable[["Machine", EventType, Any, Any], Any]


class Machine(sup.GenStatem):
    """Handles every event with one function given from outside; logs (kind, name, content, state)."""

    callback_mode = "handle_event_function"

    def __init__(self, handler: Handler, *actions: Any, state: Any = "one") -> None:
        self.handler = handler
        self.first = (state, list(actions))
        self.data: list[tuple[Any, ...]] = []

    async def init(self) -> Any:
        return self.first

    async def handle_event(self, event_type: EventType, content: Any, state: Any) -> Any:
        name = event_type.kind if event_type.name is None else (event_type.kind, event_type.name)
        self.data.append((name, content, state))
        return self.handler(self, event_type, content, state)

    async def terminate(self, reason: object, state: Any) -> None:
        self.data.append(("terminate", reason, state))


class Entering(Machine):
    state_enter: ClassVar[bool] = True


def stay(*_: Any) -> Any:
    return keep_state()


def scripted(**by_content: Any) -> Handler:
    """Content of a cast (a string) → what to return, or a function giving it."""

    def handle(machine: Machine, event_type: EventType, content: Any, state: Any) -> Any:
        if event_type.kind == "cast" and content in by_content:
            result = by_content[content]
            return result(state) if callable(result) else result
        return keep_state()

    return handle


async def log_of(pid: sup.Pid[Any]) -> list[tuple[Any, ...]]:
    await settle()
    _, data = await sup.get_state(pid)
    return list(data)


async def test_f01_both_callback_modes_behave_the_same(node: sup.Node) -> None:
    class ByFunction(sup.GenStatem):
        state_enter = True

        def __init__(self) -> None:
            self.data: list[Any] = []

        async def init(self) -> Any:
            return ("off", [sup.StateTimeout(5, "tick")])

        async def off(self, event_type: EventType, content: Any) -> Any:
            return self.step(event_type, content, "off", "on")

        async def on(self, event_type: EventType, content: Any) -> Any:
            return self.step(event_type, content, "on", "off")

        def step(self, event_type: EventType, content: Any, state: str, other: str) -> Any:
            self.data.append((event_type.kind, content, state))
            if event_type == EventType.CALL:
                return keep_state(sup.ReplyTo(event_type.from_, state))
            if event_type == EventType.CAST or event_type == EventType.STATE_TIMEOUT:
                return next_state(other)
            return keep_state()

    class ByEvent(ByFunction):
        callback_mode = "handle_event_function"

        async def handle_event(self, event_type: EventType, content: Any, state: Any) -> Any:
            return self.step(event_type, content, state, "on" if state == "off" else "off")

    logs = []
    for kind in (ByFunction, ByEvent):
        pid = await node.start(kind)
        assert await sup.call(pid, "state?") == "off"
        sup.cast(pid, "flip")
        assert await sup.call(pid, "state?") == "on"
        sup.send(pid, "info")
        await trio.sleep(10)
        logs.append(await log_of(pid))
    assert logs[0] == logs[1]
    assert len(logs[0]) == 6


async def test_f02_all_types_can_be_inserted_and_keep_their_order(node: sup.Node) -> None:
    types = [
        EventType.CAST,
        EventType.INFO,
        EventType.INTERNAL,
        EventType.TIMEOUT,
        EventType.STATE_TIMEOUT,
        EventType.GENERIC_TIMEOUT("name"),
    ]

    def handle(machine: Machine, event_type: EventType, content: Any, state: Any) -> Any:
        if content == "start":
            call = sup.NextEvent(event_type, "again")
            return keep_state(call, *[sup.NextEvent(kind, n) for n, kind in enumerate(types)])
        if content == "again":
            return keep_state(sup.ReplyTo(event_type.from_, "answered"))
        return keep_state()

    pid = await node.start(Machine, handle)
    request = sup.send_request(pid, "start")
    sup.cast(pid, "later")
    assert await request.wait() == "answered"
    assert [entry[0] for entry in await log_of(pid)] == [
        "call",
        "call",
        "cast",
        "info",
        "internal",
        "timeout",
        "state_timeout",
        ("generic_timeout", "name"),
        "cast",
    ]


@pytest.mark.parametrize("stay_result", [keep_state(), next_state("one")])
async def test_f03_staying_is_no_change(node: sup.Node, stay_result: Any) -> None:
    handler = scripted(postpone=keep_state(sup.Postpone()), stay=stay_result)
    pid = await node.start(Entering, handler, sup.StateTimeout(5, "tick"))
    sup.cast(pid, "postpone")
    await trio.sleep(3)
    sup.cast(pid, "stay")
    await trio.sleep(3)
    assert await log_of(pid) == [
        ("enter", "one", "one"),
        ("cast", "postpone", "one"),
        ("cast", "stay", "one"),
        ("state_timeout", "tick", "one"),
    ]


async def test_f04_change_cancels_state_timeout_retries_postponed_and_enters(node: sup.Node) -> None:
    def postpone_in_one(state: Any) -> Any:
        return keep_state(sup.Postpone()) if state == "one" else keep_state()

    handler = scripted(a=postpone_in_one, b=postpone_in_one, go=next_state("two"))
    pid = await node.start(Entering, handler, sup.StateTimeout(5, "tick"))
    for content in ("a", "b", "go"):
        sup.cast(pid, content)
    await trio.sleep(10)
    assert await log_of(pid) == [
        ("enter", "one", "one"),
        ("cast", "a", "one"),
        ("cast", "b", "one"),
        ("cast", "go", "one"),
        ("enter", "one", "two"),
        ("cast", "a", "two"),
        ("cast", "b", "two"),
    ]


async def test_f05_order_after_a_transition(node: sup.Node) -> None:
    go = next_state(
        "two",
        sup.StateTimeout(0, "zero"),
        sup.NextEvent(EventType.INTERNAL, "inserted"),
        sup.GenericTimeout("named", 0, "zero"),
    )
    handler = scripted(p=lambda state: keep_state(sup.Postpone()) if state == "one" else keep_state(), go=go)
    pid = await node.start(Entering, handler)
    for content in ("p", "go", "external"):
        sup.cast(pid, content)
    assert [(entry[0], entry[1]) for entry in (await log_of(pid))[3:]] == [
        ("enter", "one"),
        ("internal", "inserted"),
        ("cast", "p"),
        ("state_timeout", "zero"),
        (("generic_timeout", "named"), "zero"),
        ("cast", "external"),
    ]


async def test_f06_postponed_event_waits_goes_first_and_may_be_postponed_again(node: sup.Node) -> None:
    def until_three(state: Any) -> Any:
        return keep_state() if state == "three" else keep_state(sup.Postpone())

    handler = scripted(p=until_three, two=next_state("two"), three=next_state("three"))
    pid = await node.start(Machine, handler)
    for content in ("p", "x", "two", "y", "three", "z"):
        sup.cast(pid, content)
    assert [(content, state) for _, content, state in await log_of(pid)] == [
        ("p", "one"),
        ("x", "one"),
        ("two", "one"),
        ("p", "two"),
        ("y", "two"),
        ("three", "two"),
        ("p", "three"),
        ("z", "three"),
    ]


async def test_f07_postpone_from_init_is_ignored(node: sup.Node) -> None:
    pid = await node.start(Machine, scripted(go=next_state("two")), sup.Postpone())
    sup.cast(pid, "go")
    assert await log_of(pid) == [("cast", "go", "one")]


async def test_f08_enter_call_may_reply_and_set_timers(node: sup.Node) -> None:
    asked: list[sup.From] = []

    def handle(machine: Machine, event_type: EventType, content: Any, state: Any) -> Any:
        if event_type == EventType.CALL:
            asked.append(event_type.from_)
            return next_state("two")
        if event_type == EventType.ENTER and state == "two":
            return keep_state(sup.ReplyTo(asked[0], "entered"), sup.StateTimeout(2, "tick"))
        return keep_state()

    pid = await node.start(Entering, handle)
    assert await sup.call(pid, "go") == "entered"
    await trio.sleep(3)
    log = await log_of(pid)
    assert log[0] == ("enter", "one", "one")
    assert log[2:] == [("enter", "one", "two"), ("state_timeout", "tick", "two")]


@pytest.mark.parametrize(
    "forbidden",
    [next_state("two"), keep_state(sup.Postpone()), keep_state(sup.NextEvent(EventType.INTERNAL, 1))],
)
async def test_f08_enter_call_may_not_change_state_postpone_or_insert(node: sup.Node, forbidden: Any) -> None:
    pid = await node.start(Entering, lambda *_: forbidden)
    reason = await sup.wait_down(pid)
    assert isinstance(reason, sup.Crashed)
    assert isinstance(reason.exception, (sup.BadReturnValue, sup.BadAction))


async def test_f09_repeat_state_enters_again(node: sup.Node) -> None:
    left = [2]

    def handle(machine: Machine, event_type: EventType, content: Any, state: Any) -> Any:
        if event_type == EventType.ENTER and state == "two" and left[0]:
            left[0] -= 1
            return repeat_state()
        if content == "again":
            return repeat_state()
        return next_state("two") if content == "go" else keep_state()

    pid = await node.start(Entering, handle)
    sup.cast(pid, "go")
    sup.cast(pid, "again")
    assert await log_of(pid) == [
        ("enter", "one", "one"),
        ("cast", "go", "one"),
        ("enter", "one", "two"),
        ("enter", "one", "two"),
        ("enter", "one", "two"),
        ("cast", "again", "two"),
        ("enter", "two", "two"),
    ]


@pytest.mark.parametrize("by", ["external", "inserted", "postponed", "other timeout", "nothing", "zero"])
async def test_f10_any_event_cancels_the_event_timeout(node: sup.Node, by: str) -> None:
    timeout = sup.EventTimeout(0 if by == "zero" else 5, "tick")
    actions: dict[str, Any] = {
        "external": keep_state(timeout),
        "inserted": keep_state(timeout, sup.NextEvent(EventType.INTERNAL, "x")),
        "postponed": next_state("two", timeout),
        "other timeout": keep_state(timeout, sup.GenericTimeout("t", 1)),
        "nothing": keep_state(timeout),
        "zero": keep_state(timeout, sup.NextEvent(EventType.INTERNAL, "x")),
    }
    postpone = {"p": lambda state: keep_state(sup.Postpone()) if state == "one" else keep_state()}
    pid = await node.start(Machine, scripted(go=actions[by], **postpone))
    if by == "postponed":
        sup.cast(pid, "p")
    sup.cast(pid, "go")
    if by == "external":
        await trio.sleep(1)
        sup.cast(pid, "x")
    await trio.sleep(10)
    fired = any(entry[0] == "timeout" for entry in await log_of(pid))
    assert fired is (by == "nothing")


async def test_f11_state_timeout_survives_events_restarts_and_ends_with_the_state(node: sup.Node) -> None:
    handler = scripted(again=keep_state(sup.StateTimeout(5, "again")), go=next_state("two"))
    pid = await node.start(Machine, handler, sup.StateTimeout(5, "first"))
    await trio.sleep(3)
    sup.cast(pid, "event")
    await trio.sleep(2.5)
    assert ("state_timeout", "first", "one") in await log_of(pid)
    sup.cast(pid, "again")
    await trio.sleep(3)
    sup.cast(pid, "again")
    await trio.sleep(3)
    assert len([entry for entry in await log_of(pid) if entry[0] == "state_timeout"]) == 1
    sup.cast(pid, "go")
    await trio.sleep(10)
    assert len([entry for entry in await log_of(pid) if entry[0] == "state_timeout"]) == 1


async def test_f12_named_timeouts_are_independent_and_survive_changes(node: sup.Node) -> None:
    inf = float("inf")
    handler = scripted(
        set=next_state("two", *[sup.GenericTimeout(n, n, f"t{n}") for n in (1, 2, 3, 4)]),
        stop=next_state("three", sup.CancelTimeout(3), sup.GenericTimeout(4, inf)),
    )
    pid = await node.start(Machine, handler)
    sup.cast(pid, "set")
    await trio.sleep(1.5)
    sup.cast(pid, "stop")
    await trio.sleep(10)
    fired = [entry for entry in await log_of(pid) if isinstance(entry[0], tuple)]
    assert fired == [(("generic_timeout", 1), "t1", "two"), (("generic_timeout", 2), "t2", "three")]


async def test_f13_time_zero_needs_no_clock_and_keeps_the_order_set(node: sup.Node) -> None:
    zeros = keep_state(
        sup.GenericTimeout("b", 0),
        sup.StateTimeout(0),
        sup.GenericTimeout("a", 0),
        sup.NextEvent(EventType.INTERNAL, "inserted"),
    )
    pid = await node.start(Machine, scripted(go=zeros))
    sup.cast(pid, "go")
    sup.cast(pid, "external")
    assert [entry[0] for entry in (await log_of(pid))[1:]] == [
        "internal",
        ("generic_timeout", "b"),
        "state_timeout",
        ("generic_timeout", "a"),
        "cast",
    ]
    assert trio.current_time() == 0


async def test_f14_absolute_deadlines(node: sup.Node) -> None:
    fired = []

    def handle(machine: Machine, event_type: EventType, content: Any, state: Any) -> Any:
        fired.append((content, trio.current_time()))
        return keep_state()

    await trio.sleep(5)
    actions = [sup.StateTimeout(7, "state", absolute=True), sup.GenericTimeout("n", 6, "named", absolute=True)]
    await node.start(Machine, handle, *actions, sup.EventTimeout(2, "past", absolute=True))
    await trio.sleep(10)
    assert fired == [("past", 5), ("named", 6), ("state", 7)]


async def test_f15_cancel_and_update(node: sup.Node) -> None:
    handler = scripted(
        update=keep_state(sup.UpdateStateTimeout("new")),
        cancel=keep_state(sup.CancelStateTimeout()),
        named=keep_state(sup.UpdateTimeout("none running", "at once")),
    )
    pid = await node.start(Machine, handler, sup.StateTimeout(5, "old"))
    await trio.sleep(3)
    sup.cast(pid, "update")
    await trio.sleep(1.9)
    assert len(await log_of(pid)) == 1
    await trio.sleep(0.2)
    assert (await log_of(pid))[-1] == ("state_timeout", "new", "one")
    sup.cast(pid, "named")
    assert (await log_of(pid))[-1] == (("generic_timeout", "none running"), "at once", "one")
    pid = await node.start(Machine, handler, sup.StateTimeout(5, "old"))
    sup.cast(pid, "cancel")
    await trio.sleep(10)
    assert [entry[0] for entry in await log_of(pid)] == ["cast"]


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
