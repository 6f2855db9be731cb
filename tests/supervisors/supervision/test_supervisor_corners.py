"""Corners of supervisors and nodes: what seldom happens, and must be right all the same."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from actors import Broken, Echo, Worker, World, crash, pids, wait_forever, worker

import supervisors as sup
from supervisors.nodes.node import stack_of
from supervisors.supervision.restart_policy import RestartWindow
from supervisors.testing import settle

KINDS = [sup.Supervisor, sup.DynamicSupervisor]


@pytest.mark.parametrize("value", [-1, True])
async def test_max_children_must_be_a_number(node: sup.Node, value: Any) -> None:
    with pytest.raises(sup.StartFailed) as failed:
        await node.start(sup.DynamicSupervisor, value)
    assert isinstance(failed.value.__cause__, sup.BadFlags)


async def test_dynamic_supervisor_may_ignore_its_start_and_knows_no_child_that_is_no_pid(node: sup.Node) -> None:
    class Ignoring(sup.DynamicSupervisor):
        def init(self) -> Any:
            return sup.IGNORE

    assert await node.start(Ignoring) is sup.IGNORE
    with pytest.raises(sup.NotFound):
        await sup.terminate_child(await node.start(sup.DynamicSupervisor), [])  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
async def test_system_messages_to_a_supervisor(node: sup.Node, world: World, kind: Any) -> None:
    pid = await node.start(kind)
    await sup.start_child(pid, worker(world, "a"))
    (info,) = await sup.get_state(pid)
    assert info.id == "a"
    assert (await sup.get_status(pid))["state"] == (info,)
    with pytest.raises(TypeError):
        await sup.replace_state(pid, lambda state: state)
    world.hanging.add("a")
    await crash(info.pid)
    assert (await sup.get_state(pid))[0].pid is sup.RESTARTING


@pytest.mark.parametrize("kind", KINDS)
async def test_name_that_is_taken_at_a_start_and_at_a_restart(node: sup.Node, world: World, kind: Any) -> None:
    stranger = await node.start(Echo)
    pid = await node.start(kind)
    child = await sup.start_child(pid, worker(world, "a", name="name"))
    with pytest.raises(sup.AlreadyStarted):
        await sup.start_child(pid, worker(world, "b", name="name"))
    seen: list[Any] = []

    def take(report: Any) -> None:
        seen.append(report)
        if getattr(report, "context", "") == "child_terminated":
            node.registry.register("name", stranger)

    sup.on_report(node, take)
    await crash(child)
    assert await sup.wait_down(pid) == sup.Shutdown()
    assert [type(r.reason) for r in seen if getattr(r, "context", "") == "start_error"] == [sup.AlreadyStarted]
    assert stranger.alive


async def test_two_requests_to_terminate_one_child_of_a_dynamic_supervisor(node: sup.Node, world: World) -> None:
    world.stop_seconds["a"] = 2
    pid = await node.start(sup.DynamicSupervisor)
    child = await sup.start_child(pid, worker(world, "a"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sup.terminate_child, pid, child)
        nursery.start_soon(sup.terminate_child, pid, child)
    assert trio.current_time() == 2
    assert world.downs() == ["a"]


async def test_command_that_was_put_off_is_refused_when_the_supervisor_stops(node: sup.Node, world: World) -> None:
    pid = await node.start(sup.Supervisor, sup.SupervisorFlags(), [worker(world, "a")])
    world.hanging.add("a")
    await crash((await pids(pid))["a"])

    async def ask() -> None:
        with pytest.raises(sup.ServerExited):
            await sup.start_child(pid, worker(world, "b"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await settle()
        sup.send(pid, "put off as well")
        await sup.stop(pid, sup.Shutdown())


def test_specs_in_their_shorter_and_their_wrong_forms() -> None:
    assert sup.ChildSpec(id=1, start=(wait_forever,)).start == (wait_forever, (), {})  # type: ignore[arg-type]
    assert (repr(sup.BRUTAL_KILL), repr(sup.RESTARTING)) == ("BRUTAL_KILL", "RESTARTING")
    for field, fields in (
        ("id", {"id": None, "start": wait_forever}),
        ("start", {"id": 1, "start": (wait_forever, (), {}, None)}),
        ("start", {"id": 1, "start": (wait_forever, [], {})}),
    ):
        with pytest.raises(sup.BadChildSpec) as refused:
            sup.ChildSpec(**fields)  # type: ignore[arg-type]
        assert refused.value.field == field


async def test_bare_behaviour_class_is_a_spec(node: sup.Node) -> None:
    pid = await node.start(sup.Supervisor, sup.SupervisorFlags(), [Echo])
    assert (await pids(pid))["Echo"].alive


def test_window_stays_bounded_also_past_its_limit() -> None:
    window = RestartWindow(0, 10)
    assert [window.add(0.0) for _ in range(5)] == [False] * 5
    assert len(window.times) == 1


async def test_fault_in_the_stop_of_the_node_kills_what_is_left(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken() -> None:
        raise Broken("stop")

    async def program() -> None:
        async with sup.open_node("faulty") as node:
            pids.append(await node.start(Worker, world, "a"))
            assert repr(node) == "<Node faulty: 1 processes of its own>"
            monkeypatch.setattr(node, "_stop_all", broken)

    pids: list[Any] = []
    with pytest.raises(ExceptionGroup) as raised:
        await program()
    assert raised.group_contains(Broken)
    assert pids[0].exit_reason == sup.Killed()
    assert "no task" in stack_of(pids[0])


async def test_start_of_an_application_whose_dependencies_run(node: sup.Node, world: World) -> None:
    applications = sup.Applications(
        node, [sup.Application(name, sup.Supervisor, deps) for name, deps in (("a", ()), ("b", ()), ("c", ("a", "b")))]
    )
    for name in "abc":
        await applications.start(name)
    assert list(applications.running) == ["a", "b", "c"]


async def test_tracing_a_supervisor(node: sup.Node, world: World) -> None:
    pid = await node.start(sup.Supervisor)
    events: list[object] = []
    await sup.trace(pid, events.append)
    await sup.start_child(pid, worker(world, "a"))
    assert events


async def test_process_that_a_supervisor_s_own_init_has_spawned_counts_no_restarts(
    node: sup.Node, reports: list[Any]
) -> None:
    async def crashing() -> None:
        raise Broken("spawned")

    class Spawning(sup.Supervisor):
        async def init(self) -> Any:
            sup.spawn(crashing)
            return sup.SupervisorFlags(), []

    await node.start(Spawning)
    await settle()
    (report,) = [report for report in reports if isinstance(report, sup.CrashReport)]
    assert report.restarts == 0


async def test_application_that_ended_while_the_next_one_failed_is_not_stopped_twice(node: sup.Node) -> None:
    class Failing(sup.Supervisor):
        async def init(self) -> Any:
            sup.exit(applications.running["first"], sup.Killed())
            await trio.sleep(1)
            raise Broken("second")

    applications = sup.Applications(
        node,
        [sup.Application("first", sup.Supervisor), sup.Application("second", Failing, ["first"])],  # type: ignore
    )
    with pytest.raises(sup.ApplicationFailed):
        await applications.ensure_all_started("second")
    assert applications.running == {}
