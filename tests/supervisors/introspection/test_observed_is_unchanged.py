"""Observing a server changes nothing in what it does."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_machine import Entering
from scripted_server import Scripted

import supervisors as sup
from supervisors import EventType, keep_state, next_state, repeat_state
from supervisors.testing import settle, virtual_clock

RESULTS: list[Any] = [
    None,
    sup.Continue(0),
    sup.Timeout(0),
    sup.Timeout(1),
    sup.NoReply(sup.Continue(1)),
]
"""What a server's callback returns for the number it is sent."""

TRANSITIONS: list[Any] = [
    keep_state(),
    keep_state(sup.Postpone()),
    next_state("two", sup.StateTimeout(1, 0)),
    next_state("one", sup.NextEvent(EventType.INTERNAL, 2)),
    repeat_state(sup.GenericTimeout("n", 0, 0)),
]
"""What a machine's callback returns for the number it is sent."""


async def start_server(node: sup.Node) -> tuple[sup.Pid[Any], list[Any]]:
    def call(server: Scripted, request: int, from_: sup.From) -> Any:
        result = RESULTS[request]
        return sup.Reply(request, result) if not isinstance(result, sup.NoReply) else result

    def other(server: Scripted, message: int) -> Any:
        return RESULTS[message]

    pid = await node.start(Scripted, call=call, cast=other, info=other)
    return pid, (await sup.get_state(pid)).log


async def start_machine(node: sup.Node) -> tuple[sup.Pid[Any], list[Any]]:
    def handle(machine: Entering, event_type: EventType, content: Any, state: Any) -> Any:
        if event_type == EventType.ENTER or (state == "two" and content == 1):
            return keep_state()
        if event_type == EventType.CALL:
            return keep_state(sup.ReplyTo(event_type.from_, state))
        return TRANSITIONS[content]

    pid = await node.start(Entering, handle)
    return pid, (await sup.get_state(pid))[1]


async def life(start: Any, script: list[tuple[str, int]], observed: bool) -> tuple[list[Any], list[Any]]:
    """What the server logged and what its callers were answered."""
    async with sup.open_node() as node:
        pid, log = await start(node)
        if observed:
            await sup.trace(pid, lambda event: None)
            await sup.log_events(pid)
            await sup.collect_statistics(pid)
            await sup.install_debug(pid, lambda event, state: None)
        requests: list[sup.RequestId] = []
        for kind, number in script:
            if kind == "call":
                requests.append(sup.send_request(pid, number))
            elif kind == "wait":
                await trio.sleep(number / 2)
            else:
                (sup.cast if kind == "cast" else sup.send)(pid, number)
        await trio.sleep(10)
        await settle()
        return list(log), [await request.wait() if request.done else "waits" for request in requests]


SCRIPTS = st.lists(st.tuples(st.sampled_from(["call", "cast", "send", "wait"]), st.integers(0, 4)), max_size=12)


@pytest.mark.parametrize("start", [start_server, start_machine])
@given(script=SCRIPTS)
@settings(max_examples=50, deadline=None)
def test_observed_a_server_does_and_answers_the_same(start: Any, script: list[tuple[str, int]]) -> None:
    alone, observed = (trio.run(life, start, script, seen, clock=virtual_clock()) for seen in (False, True))
    assert alone == observed
