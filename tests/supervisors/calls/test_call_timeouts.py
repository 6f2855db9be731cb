"""The timers behind the timeouts of calls: right to the second, and nothing is left of a call that was answered."""

from __future__ import annotations

import gc
import math
import weakref
from typing import Any

import pytest
import trio
from actors import Echo, in_process

import supervisors as sup
from supervisors.processes.call_timeouts import MAX_BUCKETS
from supervisors.testing import settle


class Mute(sup.GenServer):
    async def handle_call(self, request: Any, from_: sup.From) -> Any:
        return sup.NO_REPLY


def seconds_to_next_deadline() -> float:
    return trio.lowlevel.current_statistics().seconds_to_next_deadline


@pytest.mark.parametrize("inside", [True, False])
async def test_each_call_times_out_at_its_own_time(node: sup.Node, inside: bool) -> None:
    pid = await node.start(Mute)
    struck: list[tuple[float, float]] = []

    async def ask(timeout: float) -> None:
        with pytest.raises(sup.CallTimeout) as timed_out:
            await sup.call(pid, "x", timeout)
        struck.append((timed_out.value.timeout, trio.current_time()))

    async def all_at_once() -> None:
        async with trio.open_nursery() as nursery:
            for timeout in (5, 3, 1.5, 3, 0, 5, -1):
                nursery.start_soon(ask, timeout)

    await (in_process(node, all_at_once) if inside else all_at_once())
    assert sorted(struck) == [(-1, 0), (0, 0), (1.5, 1.5), (3, 3), (3, 3), (5, 5), (5, 5)]
    assert len(node.call_timers) == 0
    assert pid._calls == {}


async def test_a_later_call_may_time_out_first(node: sup.Node) -> None:
    pid = await node.start(Mute)
    async with trio.open_nursery() as nursery:

        async def slow() -> None:
            with pytest.raises(sup.CallTimeout):
                await sup.call(pid, "x", 10)
            assert trio.current_time() == 10

        nursery.start_soon(slow)
        await trio.sleep(4)
        with pytest.raises(sup.CallTimeout):
            await sup.call(pid, "x", 2)
        assert trio.current_time() == 6


async def test_an_answered_call_leaves_nothing_that_could_move_the_clock(node: sup.Node) -> None:
    pid = await node.start(Echo)
    assert await sup.call(pid, 1) == 1
    assert seconds_to_next_deadline() == math.inf
    with trio.move_on_after(1):
        await sup.call(await node.start(Mute), 1)
    assert seconds_to_next_deadline() == math.inf, "nor one that was cancelled"
    with pytest.raises(sup.CallTimeout):
        await sup.call(await node.start(Mute), 1)
    assert seconds_to_next_deadline() == math.inf, "nor one that timed out"


async def test_on_a_real_clock_the_alarm_strikes_for_nothing_once(node: sup.Node) -> None:
    pid = await node.start(Echo)
    await trio.testing.wait_all_tasks_blocked()
    node.call_timers.exact = False
    for _ in range(100):
        await sup.call(pid, 1)
    assert 0 < seconds_to_next_deadline() <= 5
    with pytest.raises(sup.CallTimeout):
        await sup.call(await node.start(Mute), 1, 3)
    assert trio.current_time() == 3
    await trio.sleep(3)
    assert seconds_to_next_deadline() == math.inf


def test_a_real_clock_is_told_from_a_virtual_one() -> None:
    async def main() -> bool:
        async with sup.open_node() as node:
            pid = await node.start(Echo)
            assert await sup.call(pid, 1) == 1
            return node.call_timers.exact

    assert trio.run(main) is False


async def test_nothing_is_kept_of_calls_that_were_answered(node: sup.Node) -> None:
    class Request:
        pass

    class Accepting(sup.GenServer):
        async def handle_call(self, request: Any, from_: sup.From) -> Any:
            return sup.Reply(None)

        async def handle_cast(self, message: Any) -> None:
            pass

    pid = await node.start(Accepting)
    request = Request()
    left = weakref.ref(request)
    await sup.call(pid, request)
    del request
    sup.cast(pid, "takes the place of the last message")
    for step in range(1000):
        await sup.call(pid, None, 1 + step / 1000)
    gc.collect()
    assert left() is None
    assert len(node.call_timers) == 0
    assert len(node.call_timers._buckets) <= MAX_BUCKETS


async def test_calls_of_a_process_that_is_being_stopped_still_time_out() -> None:
    log: list[float] = []

    class Asking(sup.GenServer):
        def __init__(self, other: sup.Pid[Mute]) -> None:
            self.other = other

        async def terminate(self, reason: object) -> None:
            with pytest.raises(sup.CallTimeout):
                await sup.call(self.other, "x", 2)
            log.append(trio.current_time())

    with trio.CancelScope() as outer:
        async with sup.open_node() as node:
            await node.start(Asking, await node.start(Mute))
            await trio.sleep(1)
            outer.cancel()
            await trio.sleep_forever()
    assert log == [3]
    assert outer.cancelled_caught


async def test_room_that_is_waited_for_counts_towards_the_timeout(node: sup.Node) -> None:
    class Narrow(Mute):
        mailbox_limit = 1

        async def handle_cast(self, message: float) -> None:
            await trio.sleep(message)

    pid = await node.start(Narrow)
    sup.cast(pid, 2)
    await trio.testing.wait_all_tasks_blocked()
    sup.cast(pid, 1)
    with pytest.raises(sup.CallTimeout) as timed_out:
        await sup.call(pid, "x", 5)
    assert trio.current_time() == 5
    assert timed_out.value.timeout == 5, "the whole timeout is named, not what was left of it"


async def test_a_timeout_that_is_no_time_has_no_effect_at_all(node: sup.Node) -> None:
    pid = await node.start(Mute)
    request = sup.send_request(pid, "x")
    collection: sup.RequestCollection[str] = sup.RequestCollection()
    collection.add(sup.send_request(pid, "x"), "label")
    await settle()
    handled = pid.mailbox.handled
    for attempt in (
        lambda: sup.call(pid, "x", math.nan),
        lambda: sup.get_state(pid, math.nan),
        lambda: sup.wait_down(pid, math.nan),
        lambda: sup.multi_call([pid], "x", math.nan),
        lambda: request.wait(math.nan),
        lambda: collection.wait_any(math.nan),
        lambda: node.start(Mute, timeout=math.nan),
    ):
        with pytest.raises(ValueError, match="nan"):
            await attempt()
    await settle()
    assert pid.mailbox.handled == handled, "nothing was sent"
    assert node.processes == (pid,), "nothing was started"
    await sup.stop(pid)  # wakes whoever waits: nobody, and not this task in the middle of another wait
    assert isinstance((await collection.wait_any()).error, sup.ServerExited)
    with pytest.raises(sup.ServerExited):
        await request.wait()


async def test_a_timeout_below_zero_has_passed(node: sup.Node) -> None:
    class Hanging(sup.GenServer):
        async def init(self) -> None:
            await trio.sleep_forever()

    pid = await node.start(Mute)
    collection: sup.RequestCollection[str] = sup.RequestCollection()
    collection.add(sup.send_request(pid, "x"), "label")
    await settle()
    for attempt in (
        lambda: sup.call(pid, "x", -1),
        lambda: sup.wait_down(pid, -1),
        lambda: collection.wait_any(-1),
        lambda: sup.send_request(pid, "x").wait(-1),
    ):
        with pytest.raises(sup.CallTimeout):
            await attempt()
    with pytest.raises(sup.StartTimeout):
        await node.start(Hanging, timeout=-1)
    await sup.stop(pid)
    assert trio.current_time() == 0


async def test_many_different_timeouts_at_once_do_not_slow_one_another(node: sup.Node) -> None:
    pid = await node.start(Mute)
    answers = []

    async def ask(timeout: float) -> None:
        with pytest.raises(sup.CallTimeout):
            await sup.call(pid, "x", timeout)
        answers.append(timeout)

    async with trio.open_nursery() as nursery:
        for step in range(3 * MAX_BUCKETS):
            nursery.start_soon(ask, 1 + step / 1000)
        await settle()
        assert len(node.call_timers) == MAX_BUCKETS, "cancel scopes do for the others"
    assert answers == sorted(answers)
    assert len(answers) == 3 * MAX_BUCKETS
    with pytest.raises(sup.CallTimeout):
        await sup.call(pid, "x", 0.5)
    assert len(node.call_timers) == 0
