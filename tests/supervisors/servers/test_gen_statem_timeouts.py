"""The timeouts of a state machine: rows F10 to F15."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from scripted_machine import Machine, log_of, scripted

import supervisors as sup
from supervisors import EventType, keep_state, next_state


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


TIMERS: dict[str, tuple[Any, Any, Any]] = {
    "state_timeout": (sup.StateTimeout(5, "old"), sup.CancelStateTimeout(), sup.UpdateStateTimeout("new")),
    "timeout": (sup.EventTimeout(5, "old"), sup.CancelEventTimeout(), sup.UpdateEventTimeout("new")),
    "generic_timeout": (sup.GenericTimeout("n", 5, "old"), sup.CancelTimeout("n"), sup.UpdateTimeout("n", "new")),
}


@pytest.mark.parametrize("kind", TIMERS)
@pytest.mark.parametrize("running", [True, False])
async def test_f15_cancel_and_update_of_each_kind(node: sup.Node, kind: str, running: bool) -> None:
    start, cancel, update = TIMERS[kind]
    fired = []

    def handle(machine: Machine, event_type: EventType, content: Any, state: Any) -> Any:
        if event_type.kind == "cast":
            return keep_state(*content)
        fired.append((event_type.kind, content, trio.current_time()))
        return keep_state()

    first = [start] if running else []
    pid = await node.start(Machine, handle)
    sup.cast(pid, [*first, cancel])
    await trio.sleep(10)
    assert fired == []
    sup.cast(pid, [*first, update])
    await trio.sleep(10)
    assert fired == [(kind, "new", 15 if running else 10)], "the time stays; without a timer the event comes at once"
