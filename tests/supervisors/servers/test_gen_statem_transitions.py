"""Events, states and the order of what a transition does: rows F01 to F09."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from scripted_machine import Entering, Machine, log_of, scripted

import supervisors as sup
from supervisors import EventType, keep_state, next_state, repeat_state, stop_machine


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


async def test_f08_enter_call_may_stop_and_may_name_its_own_state(node: sup.Node) -> None:
    def handle(machine: Machine, event_type: EventType, content: Any, state: Any) -> Any:
        if event_type != EventType.ENTER:
            return next_state(content)
        return stop_machine("arrived") if state == "end" else next_state(state, sup.StateTimeout(1, "end"))

    pid = await node.start(Entering, handle)
    assert await sup.wait_down(pid) == "arrived"
    assert trio.current_time() == 1
