"""Shutdown times, kills, children that resist: rows S34 to S39 of the conformance list."""

from __future__ import annotations

import math
import os
import sys
from types import FrameType
from typing import Any

import pytest
import trio
from actors import Defiant, World, crash, pids, wait_forever, worker

import supervisors as sup
from supervisors.testing import settle, virtual_clock

FLAGS = sup.SupervisorFlags(intensity=10, period=10)
KINDS = ["static", "dynamic"]


async def supervisor_of(node: sup.Node, kind: str, specs: list[sup.ChildSpec]) -> tuple[Any, list[Any]]:
    if kind == "static":
        pid: Any = await node.start(sup.Supervisor, FLAGS)
    else:
        pid = await node.start(sup.DynamicSupervisor)
    return pid, [await sup.start_child(pid, spec) for spec in specs]


@pytest.mark.parametrize("kind", KINDS)
async def test_s34_polite_child_ends_with_shutdown_one_that_overstays_is_killed(
    node: sup.Node, world: World, kind: str
) -> None:
    world.stop_seconds = {"polite": 1.9, "slow": 2.1}
    specs = [worker(world, "polite", shutdown=2), worker(world, "slow", shutdown=2)]
    pid, (polite, slow) = await supervisor_of(node, kind, specs)
    began = trio.current_time()
    await sup.stop(pid, sup.Shutdown())
    assert polite.exit_reason == sup.Shutdown()
    assert slow.exit_reason == sup.Killed()
    assert trio.current_time() - began == pytest.approx(3.9 if kind == "static" else 2)


@pytest.mark.parametrize("kind", KINDS)
async def test_s35_infinite_shutdown_waits_without_limit(node: sup.Node, world: World, kind: str) -> None:
    world.stop_seconds = {"slow": 1e6}
    sub = sup.child(sup.Supervisor, FLAGS, [worker(world, "slow", shutdown=math.inf)], id="sub")
    pid, (slow, _) = await supervisor_of(node, kind, [worker(world, "slow", shutdown=math.inf), sub])
    await sup.stop(pid, sup.Shutdown())
    assert slow.exit_reason == sup.Shutdown()
    assert world.downs() == ["slow", "slow"]


@pytest.mark.parametrize("kind", KINDS)
async def test_s36_brutal_kill_runs_finally_and_not_terminate(node: sup.Node, world: World, kind: str) -> None:
    finals = []

    async def plain() -> None:
        try:
            await trio.sleep_forever()
        finally:
            finals.append("finally")

    specs = [worker(world, "a", shutdown=sup.BRUTAL_KILL), sup.child(plain, shutdown=sup.BRUTAL_KILL)]
    pid, children = await supervisor_of(node, kind, specs)
    await settle()
    await sup.stop(pid, sup.Shutdown())
    assert [child.exit_reason for child in children] == [sup.Killed(), sup.Killed()]
    assert world.downs() == []
    assert finals == ["finally"]


@pytest.mark.parametrize("kind", KINDS)
async def test_s37_children_that_end_by_themselves_meanwhile_keep_their_reason(
    node: sup.Node, world: World, kind: str
) -> None:
    class Leaving(sup.GenServer):
        async def terminate(self, reason: object) -> None:
            raise sup.Exit("mine")

    world.stop_seconds = {"slow": 1}
    specs = [sup.child(Leaving, id=n) for n in range(3)] + [worker(world, "slow")]
    pid, children = await supervisor_of(node, kind, specs)
    sup.cast(children[0], "crash at once")  # has no handle_cast
    await sup.stop(pid, sup.Shutdown())
    assert [child.exit_reason for child in children[1:3]] == ["mine", "mine"]
    assert pid.exit_reason == sup.Shutdown()


async def test_s39_child_that_swallows_cancellation_does_not_hang_a_static_supervisor(
    node: sup.Node, world: World, reports: list[object]
) -> None:
    defiant = Defiant()
    pid, (child, other) = await supervisor_of(
        node, "static", [sup.child(defiant.run, id="defiant", shutdown=1), worker(world, "a")]
    )
    await settle()
    answered = trio.Event()

    async with trio.open_nursery() as nursery:

        async def terminate() -> None:
            await sup.terminate_child(pid, "defiant")
            answered.set()

        nursery.start_soon(terminate)
        await settle()
        assert (await sup.count_children(pid)).active == 2, "questions are answered meanwhile"
        await trio.sleep(3)
        assert "unkillable" in [getattr(report, "context", None) for report in reports]
        await sup.terminate_child(pid, "a")
        assert not other.alive
        await sup.restart_child(pid, "a")
        assert child.alive
        assert not answered.is_set()
        defiant.released.set()
    assert answered.is_set()
    assert child.exit_reason == sup.Killed()
    assert (await pids(pid))["defiant"] is None


async def test_s39_child_that_swallows_cancellation_does_not_hang_a_dynamic_supervisor(
    node: sup.Node, world: World
) -> None:
    defiant = Defiant()
    pid, (child,) = await supervisor_of(node, "dynamic", [sup.child(defiant.run, shutdown=1, restart="temporary")])
    await settle()
    with pytest.raises(sup.CallTimeout):
        await sup.terminate_child(pid, child, timeout=10)
    other = await sup.start_child(pid, worker(world, "a"))
    await sup.terminate_child(pid, other)
    defiant.released.set()
    assert await sup.wait_down(child) == sup.Killed()
    assert await pids(pid) == {}


async def test_s39_group_restart_waits_for_the_one_that_resists_and_the_queue_answers(
    node: sup.Node, world: World
) -> None:
    defiant = Defiant()
    flags = sup.SupervisorFlags("one_for_all", 5, 10)
    specs = [worker(world, "a"), sup.child(defiant.run, id="defiant", shutdown=1)]
    pid = await node.start(sup.Supervisor, flags, specs)
    before = await pids(pid)
    await settle()
    await crash(before["a"])
    await trio.sleep(5)
    assert await pids(pid) == {"a": sup.RESTARTING, "defiant": sup.RESTARTING}
    defiant.released.set()
    await settle()
    after = await pids(pid)
    assert after["a"].alive
    assert after["defiant"] is not before["defiant"]


async def test_s39_stopping_goes_on_past_the_one_that_resists(node: sup.Node, world: World) -> None:
    defiant = Defiant()
    pid, (a, child) = await supervisor_of(
        node, "static", [worker(world, "a"), sup.child(defiant.run, id="defiant", shutdown=1)]
    )
    await settle()
    with pytest.raises(sup.CallTimeout):
        await sup.stop(pid, sup.Shutdown(), timeout=30)
    assert not a.alive
    assert (await sup.which_child(pid, "defiant")).pid is child, "still answering"
    with pytest.raises(sup.ServerExited):
        await sup.start_child(pid, worker(world, "b"))
    defiant.released.set()
    assert await sup.wait_down(pid) == sup.Shutdown()


@pytest.mark.parametrize("kind", KINDS)
async def test_exit_signal_of_a_stranger_is_dropped_and_one_from_outside_stops(
    node: sup.Node, world: World, kind: str
) -> None:
    pid, _ = await supervisor_of(node, kind, [worker(world, "a")])

    async def stranger() -> None:
        sup.exit(pid, sup.Shutdown())

    await sup.wait_down(node.spawn(stranger))
    await settle()
    assert pid.alive
    sup.exit(pid, sup.Shutdown("enough"))
    assert await sup.wait_down(pid) == sup.Shutdown("enough")
    assert world.downs() == ["a"]


def lines_run_by(function: Any, *args: Any) -> int:
    """How many lines of the package run: what grows with each turn of each loop, on any machine."""
    package = os.path.dirname(sup.__file__)
    lines = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        if not frame.f_code.co_filename.startswith(package):
            return None
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        trio.run(function, *args, clock=virtual_clock())
    finally:
        sys.settrace(before)
    return lines


@pytest.mark.parametrize("how", ["one by one", "all at once"])
@pytest.mark.parametrize("kind", [sup.Supervisor, sup.DynamicSupervisor])
def test_s46_starting_and_stopping_many_children_scales_linearly(kind: Any, how: str) -> None:
    async def life(count: int) -> None:
        async with sup.open_node(stall_seconds=math.inf) as node:
            pid: Any = await node.start(kind)
            children = [await sup.start_child(pid, sup.child(wait_forever, id=n)) for n in range(count)]
            if how == "one by one":
                for n in range(count):
                    await sup.terminate_child(pid, children[n] if kind is sup.DynamicSupervisor else n)
            messages = pid.mailbox.handled
            await sup.stop(pid, sup.Shutdown())
            assert not any(child.alive for child in children)
        per_child.append(messages / count)

    per_child: list[float] = []
    few, many = (lines_run_by(life, count) for count in (40, 400))
    assert many < 11 * few, "ten times as many children, ten times the work"
    assert per_child[1] <= per_child[0], "a fixed number of messages for each"
