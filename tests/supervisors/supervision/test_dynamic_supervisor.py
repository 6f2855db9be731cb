"""Rows D01 to D07 of the conformance list, and what a dynamic supervisor promises beyond them."""

from __future__ import annotations

import contextvars
import math
from typing import Any

import pytest
import trio
from actors import Broken, Worker, World, crash, end, pids, worker

import supervisors as sup
from supervisors.testing import settle


async def test_d01_start_child_tells_its_results_apart(node: sup.Node, world: World) -> None:
    class Informing(sup.GenServer):
        async def init(self) -> Any:
            return sup.Started("extra")

    class Refusing(sup.GenServer):
        async def init(self) -> Any:
            return sup.Stop("refused")

    pid = await node.start(sup.DynamicSupervisor)
    plain = await sup.start_child(pid, worker(world, "a"))
    assert (plain.alive, plain.start_info) == (True, None)
    informing = await sup.start_child(pid, sup.child(Informing))
    assert (informing.alive, informing.start_info) == (True, "extra")
    world.ignoring.add("ignored")
    assert await sup.start_child(pid, worker(world, "ignored")) is sup.IGNORE
    with pytest.raises(sup.StartFailed) as failed:
        await sup.start_child(pid, sup.child(Refusing))
    assert failed.value.reason == "refused"
    world.failing.add("bad")
    with pytest.raises(sup.StartFailed) as failed:
        await sup.start_child(pid, worker(world, "bad"))
    assert isinstance(failed.value.__cause__, Broken)
    assert await sup.count_children(pid) == sup.ChildCounts(2, 2, 0, 2)


async def test_d02_max_children_refuses_and_counts_restarting_ones(node: sup.Node, world: World) -> None:
    pid = await node.start(sup.DynamicSupervisor, max_children=2)
    first = await sup.start_child(pid, worker(world, "a"))
    second = await sup.start_child(pid, worker(world, "b", restart="temporary"))
    with pytest.raises(sup.MaxChildren) as refused:
        await sup.start_child(pid, worker(world, "c"))
    assert refused.value.limit == 2
    world.hanging.add("a")
    await crash(first)
    with pytest.raises(sup.MaxChildren):
        await sup.start_child(pid, worker(world, "c"))
    await end(second, sup.Normal())
    assert (await sup.start_child(pid, worker(world, "c"))).alive


@pytest.mark.parametrize(
    ("restart", "reason", "restarted"),
    [
        ("permanent", sup.Normal(), True),
        ("permanent", sup.Shutdown("x"), True),
        ("permanent", "abnormal", True),
        ("transient", sup.Normal(), False),
        ("transient", sup.Shutdown("x"), False),
        ("transient", "abnormal", True),
        ("temporary", sup.Normal(), False),
        ("temporary", "abnormal", False),
    ],
)
async def test_d03_restart_rules(node: sup.Node, world: World, restart: Any, reason: object, restarted: bool) -> None:
    pid = await node.start(sup.DynamicSupervisor)
    child = await sup.start_child(pid, worker(world, "a", restart=restart))
    await end(child, reason)
    children = await pids(pid)
    assert (list(children) == ["a"]) is restarted
    assert world.starts["a"] == (2 if restarted else 1)
    if restarted:
        assert children["a"] is not child


async def test_d04_ignore_on_automatic_restart_drops_the_child(node: sup.Node, world: World) -> None:
    pid = await node.start(sup.DynamicSupervisor)
    child = await sup.start_child(pid, worker(world, "a"))
    world.ignoring.add("a")
    await crash(child)
    assert await pids(pid) == {}
    assert pid.alive


async def test_d04_child_whose_restart_fails_is_restarting_a_worker_and_not_active(
    node: sup.Node, world: World
) -> None:
    pid = await node.start(sup.DynamicSupervisor, None, 10, 60, sup.Backoff(1, jitter=0))
    child = await sup.start_child(pid, worker(world, "a"))
    world.failing.add("a")
    await crash(child)
    await trio.sleep(1.5)
    assert world.starts["a"] == 2
    assert await pids(pid) == {"a": sup.RESTARTING}
    assert await sup.count_children(pid) == sup.ChildCounts(1, 0, 0, 1)
    world.failing.clear()
    await trio.sleep(2)
    assert (await pids(pid))["a"].alive


@pytest.mark.parametrize("failing", ["at once", "while retrying"])
async def test_d05_too_many_restarts_end_the_supervisor_with_shutdown(
    node: sup.Node, world: World, failing: str
) -> None:
    pid = await node.start(sup.DynamicSupervisor, intensity=0 if failing == "at once" else 3)
    child = await sup.start_child(pid, worker(world, "a"))
    other = await sup.start_child(pid, worker(world, "b"))
    world.failing.add("a")
    await crash(child)
    assert pid.exit_reason == sup.Shutdown()
    assert other.exit_reason == sup.Shutdown()
    assert world.starts["a"] == (1 if failing == "at once" else 4)


async def test_d06_stop_is_parallel_and_keeps_each_reason(node: sup.Node, world: World) -> None:
    world.stop_seconds = {"a": 3, "b": 4, "slow": 100}
    pid = await node.start(sup.DynamicSupervisor)
    specs = [worker(world, "a"), worker(world, "b"), worker(world, "slow", shutdown=2)]
    specs += [worker(world, "brutal", shutdown=sup.BRUTAL_KILL), worker(world, "endless", shutdown=math.inf)]
    children = [await sup.start_child(pid, spec) for spec in specs]
    began = trio.current_time()
    await sup.stop(pid, sup.Shutdown())
    assert trio.current_time() - began == pytest.approx(4)
    assert [child.exit_reason for child in children] == [
        sup.Shutdown(),
        sup.Shutdown(),
        sup.Killed(),
        sup.Killed(),
        sup.Shutdown(),
    ]


async def test_d07_terminate_child(node: sup.Node, world: World) -> None:
    pid = await node.start(sup.DynamicSupervisor)
    child = await sup.start_child(pid, worker(world, "a"))
    await sup.terminate_child(pid, child)
    assert child.exit_reason == sup.Shutdown()
    with pytest.raises(sup.NotFound):
        await sup.terminate_child(pid, child)
    stranger = await node.start(Worker, world, "stranger")
    with pytest.raises(sup.NotFound):
        await sup.terminate_child(pid, stranger)
    assert stranger.alive
    restarting = await sup.start_child(pid, worker(world, "b"))
    world.hanging.add("b")
    await crash(restarting)
    await sup.terminate_child(pid, restarting)
    assert await sup.count_children(pid) == sup.ChildCounts(0, 0, 0, 0)


async def test_d08_commands_by_id_are_refused(node: sup.Node, world: World) -> None:
    pid = await node.start(sup.DynamicSupervisor)
    await sup.start_child(pid, worker(world, "a"))
    for command in (sup.terminate_child, sup.restart_child, sup.delete_child):
        with pytest.raises(sup.NotFound):
            await command(pid, "a")
    assert (await sup.count_children(pid)).active == 1


async def test_d08_arguments_are_those_of_the_spec_at_each_restart(node: sup.Node) -> None:
    seen: list[Any] = []

    async def child(*args: Any, **kwargs: Any) -> None:
        seen.append((args, kwargs))
        await sup.receive()

    pid = await node.start(sup.DynamicSupervisor, intensity=5)
    await sup.start_child(pid, sup.child(child, 1, key="value"))
    for _ in range(2):
        await settle()
        sup.send((await pids(pid))["child"], "end")
    await settle()
    assert seen == [((1,), {"key": "value"})] * 3


async def test_slow_start_of_one_child_does_not_hold_up_another(node: sup.Node, world: World) -> None:
    pid = await node.start(sup.DynamicSupervisor)
    world.hanging.add("slow")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sup.start_child, pid, worker(world, "slow"))
        await settle()
        assert (await sup.start_child(pid, worker(world, "quick"))).alive
        assert await sup.count_children(pid) == sup.ChildCounts(2, 1, 0, 2)
        nursery.cancel_scope.cancel()
    await sup.stop(pid, sup.Shutdown())
    assert world.ups() == ["quick"]


async def test_child_runs_in_the_context_of_whoever_asked_for_it(node: sup.Node) -> None:
    trace: contextvars.ContextVar[str] = contextvars.ContextVar("trace", default="none")
    seen = []

    async def child() -> None:
        seen.append((trace.get(), sup.self().parent))

    pid = await node.start(sup.DynamicSupervisor)
    trace.set("requester")
    await sup.start_child(pid, sup.child(child, restart="temporary"))
    await settle()
    assert seen == [("requester", pid)]


async def test_start_child_cancelled_by_its_requester_still_starts_the_child(node: sup.Node, world: World) -> None:
    for kind in (sup.Supervisor, sup.DynamicSupervisor):
        pid: Any = await node.start(kind)
        with trio.CancelScope() as scope:
            scope.cancel()
            await sup.start_child(pid, worker(world, "a"))
        await settle()
        assert (await pids(pid))["a"].alive


async def test_children_that_stopped_long_before_their_time_are_not_kept_until_then(node: sup.Node) -> None:
    pid = await node.start(sup.DynamicSupervisor)
    stays = await sup.start_child(pid, sup.child(Worker, World(), "stays", shutdown=3600))
    for _ in range(300):
        child = await sup.start_child(pid, sup.child(Worker, World(), "a", shutdown=3600))
        await sup.terminate_child(pid, child)
    loop: Any = pid._loop
    assert len(loop.deadlines) <= 70
    assert stays.alive
