"""What a type checker knows. Not run: `test_typing.py` gives it to mypy and pyright, which must find nothing."""

from __future__ import annotations

from typing import Any, assert_type

import attrs

import supervisors as sup


@attrs.frozen
class Get(sup.Request[int]):
    """Any server may be asked this."""


@attrs.frozen
class Describe(sup.Request[str, "Counter"]):
    """Only for counters."""

    depth: int


class Reset(sup.Request[None, "Counter"]):
    pass


class Counter(sup.GenServer):
    def __init__(self, count: int = 0) -> None:
        self.count = count

    async def handle_call(self, request: Get | Describe | Reset, from_: sup.From) -> sup.Reply:
        return sup.Reply(self.count)


class NamedCounter(Counter):
    pass


class Door(sup.GenStatem):
    pass


async def calls(pid: sup.Pid[Counter], named: sup.Pid[NamedCounter], untyped: sup.Pid[Any], via: sup.Via) -> None:
    assert_type(await sup.call(pid, Get()), int)
    assert_type(await sup.call(pid, Describe(1), timeout=2), str)
    assert_type(await sup.call(named, Describe(1)), str)
    assert_type(await sup.call(untyped, Describe(1)), str)
    assert_type(await sup.call(via, Get()), int)


async def calls_by_pid_or_name(target: sup.Pid[Any] | sup.Via) -> None:
    assert_type(await sup.call(target, Get()), int)


async def untyped_requests(pid: sup.Pid[Counter], target: sup.Target, unknown: Any, thing: object) -> None:
    for request in (1, "x", ("add", 1), [1], {"a": 1}, Counter, None, thing, unknown):
        assert_type(await sup.call(pid, request), Any)
    assert_type(await sup.call(pid, "get"), Any)
    assert_type(await sup.call(target, ("add", 1)), Any)
    assert_type(await sup.call(target, None), Any)
    assert_type(await sup.call(pid, lambda: 1), Any)
    assert_type(await sup.call(pid, unknown), Any)
    assert_type(await sup.call(target, thing), Any)
    sup.cast(target, "x")
    sup.cast(target, None)
    assert_type(sup.send_request(target, "x"), sup.RequestId[Any])


async def requests(pid: sup.Pid[Counter], via: sup.Via) -> None:
    sup.cast(pid, Reset())
    sup.cast(via, Reset())
    request = sup.send_request(pid, Get())
    assert_type(request, sup.RequestId[int])
    assert_type(await request.wait(), int)
    assert_type(sup.send_request(via, Describe(1)), sup.RequestId[str])
    collection: sup.RequestCollection[str] = sup.RequestCollection()
    collection.add(request, "label")
    assert_type((await collection.wait_any()).label, str)
    replies, bad = await sup.multi_call([pid, pid], Get())
    assert_type(replies, list[tuple[sup.Pid[Any], int]])
    assert_type(bad, list[tuple[sup.Pid[Any], Exception]])
    some = await sup.multi_call([via], "x")
    assert_type(some, tuple[list[tuple[sup.Target, Any]], list[tuple[sup.Target, Exception]]])


async def starts(node: sup.Node) -> None:
    assert_type(await node.start(Counter, 3, name="counter"), sup.Pid[Counter])
    assert_type(await sup.start(Counter), sup.Pid[Counter])
    assert_type(await sup.start_link(NamedCounter), sup.Pid[NamedCounter])
    assert_type(await sup.start_monitor(Counter), tuple[sup.Pid[Counter], sup.MonitorRef])


async def states(pid: sup.Pid[Counter], door: sup.Pid[Door], untyped: sup.Pid[Any], target: sup.Target) -> None:
    assert_type(await sup.get_state(pid), Counter)
    assert_type((await sup.get_state(pid)).count, int)
    assert_type(await sup.get_state(door), tuple[Any, Any])
    assert_type(await sup.get_state(untyped), Any)
    assert_type(await sup.get_state(target), Any)
    assert_type(await sup.replace_state(pid, one_more), Counter)


def one_more(counter: Counter) -> Counter:
    return Counter(counter.count + 1)


def general(pid: sup.Pid[NamedCounter]) -> sup.Pid[sup.GenServer]:
    """A pid of a special server is one of the more general, too."""
    return pid
