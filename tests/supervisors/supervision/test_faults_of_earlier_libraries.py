"""What other actor libraries for Python got wrong about supervisors, each as a test named after the fault."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from actors import Broken, World, crash, pids, wait_forever, worker

import supervisors as sup
from supervisors.testing import settle


async def test_triotp_restart_window_is_per_child(node: sup.Node, world: World) -> None:
    flags = sup.SupervisorFlags(intensity=2, period=10)
    pid = await node.start(sup.Supervisor, flags, [worker(world, id) for id in "abc"])
    for child in (await pids(pid)).values():
        await crash(child)
    assert not pid.alive, "three crashes in all, though one for each child"


async def test_triotp_only_one_for_one(node: sup.Node, world: World) -> None:
    for strategy, restarted in (("one_for_one", "b"), ("rest_for_one", "bc"), ("one_for_all", "abc")):
        flags: Any = sup.SupervisorFlags(strategy)  # type: ignore[arg-type]
        pid = await node.start(sup.Supervisor, flags, [worker(world, id) for id in "abc"])
        before = await pids(pid)
        await crash(before["b"])
        after = await pids(pid)
        assert [id for id in "abc" if after[id] is not before[id]] == list(restarted)


async def test_triotp_no_shutdown_order_or_time(node: sup.Node, world: World) -> None:
    world.stop_seconds = {"a": 1, "b": 100, "c": 1}
    pid = await node.start(sup.Supervisor, sup.SupervisorFlags(), [worker(world, id, shutdown=3) for id in "abc"])
    children = await pids(pid)
    await sup.stop(pid, sup.Shutdown())
    assert world.downs() == ["c", "a"]
    assert children["b"].exit_reason == sup.Killed()
    assert trio.current_time() == 5


async def test_triotp_start_is_not_synchronous(node: sup.Node) -> None:
    class Slow(sup.GenServer):
        async def init(self) -> None:
            await trio.sleep(3)
            ready.append(trio.current_time())

    ready: list[float] = []
    pid = await node.start(sup.Supervisor, sup.SupervisorFlags(), [sup.child(Slow)])
    assert ready == [3]
    assert (await sup.start_child(pid, sup.child(Slow, id="second"))).ready
    assert ready == [3, 6]


async def test_mode_supervisor_polls_and_raises_system_exit_at_its_limit(node: sup.Node, world: World) -> None:
    pid = await node.start(sup.Supervisor, sup.SupervisorFlags(intensity=1), [worker(world, "a")])
    await crash((await pids(pid))["a"])
    await crash((await pids(pid))["a"])
    assert pid.exit_reason == sup.Shutdown()
    assert trio.current_time() == 0, "it hears of an end at once"


@pytest.mark.parametrize("kind", [sup.Supervisor, sup.DynamicSupervisor])
async def test_tractor_registry_entries_leaked_on_cancel(world: World, kind: Any) -> None:
    world.hanging.add("starting")
    with trio.move_on_after(1):
        async with sup.open_node() as node:
            pid = await node.start(kind)
            await sup.start_child(pid, worker(world, "up", name="up"))
            await sup.start_child(pid, worker(world, "starting", name="starting"))
    assert trio.current_time() == 1
    assert node.registry.count == 0


@pytest.mark.parametrize("kind", [sup.Supervisor, sup.DynamicSupervisor])
async def test_tractor_teardown_races_with_children_that_end_meanwhile(node: sup.Node, world: World, kind: Any) -> None:
    pid = await node.start(kind)
    children = [await sup.start_child(pid, worker(world, str(n))) for n in range(5)]
    for child in children[::2]:
        sup.cast(child, "crash")
    await sup.stop(pid, sup.Shutdown())
    assert not any(child.alive for child in children)
    assert isinstance(children[0].exit_reason, (sup.Crashed, sup.Shutdown))


async def test_thespian_child_created_while_its_parent_exits_is_left_behind(node: sup.Node) -> None:
    class Parent(sup.GenServer):
        async def terminate(self, reason: object) -> None:
            requests.append(sup.send_request(pid, "which_children"))
            try:
                await sup.start_child(dynamic, sup.child(wait_forever, restart="temporary"))
            except sup.SupervisorsError as exc:
                refused.append(exc)

    requests: list[Any] = []
    refused: list[BaseException] = []
    dynamic = await node.start(sup.DynamicSupervisor)
    pid = await node.start(sup.Supervisor, sup.SupervisorFlags(), [sup.child(Parent)])
    await sup.stop(pid, sup.Shutdown())
    (late,) = await sup.which_children(dynamic)
    assert late.pid is not None
    await sup.start_child(dynamic, sup.child(Parent))
    await sup.stop(dynamic, sup.Shutdown())
    assert not late.pid.alive  # type: ignore[union-attr]
    assert isinstance(refused[0], (sup.ServerExited, sup.Deadlock)), "a supervisor that is stopping starts nothing"


async def test_thespian_exit_request_queues_behind_a_flood(node: sup.Node, world: World) -> None:
    pid = await node.start(sup.Supervisor, sup.SupervisorFlags(), [worker(world, "a")])
    child = (await pids(pid))["a"]
    for _ in range(10_000):
        sup.cast(child, "noise")
        sup.send(child, "noise")
    await sup.stop(pid, sup.Shutdown())
    assert child.exit_reason == sup.Shutdown()


async def test_an_error_while_stopping_hides_the_others(node: sup.Node, world: World, reports: list[Any]) -> None:
    class Failing(sup.GenServer):
        async def terminate(self, reason: object) -> None:
            raise Broken("clean-up")

    specs = [worker(world, "a"), sup.child(Failing), worker(world, "b")]
    pid = await node.start(sup.Supervisor, sup.SupervisorFlags(), specs)
    await sup.stop(pid, sup.Shutdown())
    await settle()
    assert world.downs() == ["b", "a"]
    named = [report.offender.id for report in reports if getattr(report, "context", "") == "shutdown_error"]
    assert named == ["Failing"]
