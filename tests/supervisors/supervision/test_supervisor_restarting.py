"""Restart types, strategies, intensity: rows S19 to S33, S38 and S40 to S44 of the conformance list."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import trio
from actors import World, crash, end, pids, worker

import supervisors as sup
from supervisors.testing import settle

FLAGS = sup.SupervisorFlags(intensity=10, period=10)
REASONS = [sup.Normal(), sup.Shutdown(), sup.Shutdown("detail"), "abnormal"]


def flags(strategy: Any, intensity: int = 10, period: float = 10, **more: Any) -> sup.SupervisorFlags:
    return sup.SupervisorFlags(strategy, intensity, period, **more)


@pytest.mark.parametrize("reason", REASONS)
async def test_s19_permanent_child_is_always_restarted(node: sup.Node, world: World, reason: object) -> None:
    pid = await node.start(sup.Supervisor, FLAGS, [worker(world, "a")])
    first = (await pids(pid))["a"]
    await end(first, reason)
    second = (await pids(pid))["a"]
    assert second is not first
    assert second.alive
    await crash(second)
    assert (await pids(pid))["a"].alive


@pytest.mark.parametrize("reason", REASONS)
async def test_s20_transient_child_is_restarted_after_an_abnormal_exit_only(
    node: sup.Node, world: World, reason: object
) -> None:
    pid = await node.start(sup.Supervisor, FLAGS, [worker(world, "a", restart="transient")])
    await end((await pids(pid))["a"], reason)
    after = (await pids(pid))["a"]
    if reason == "abnormal":
        assert after.alive
    else:
        assert after is None
    assert (await sup.count_children(pid)).specs == 1


@pytest.mark.parametrize("reason", REASONS)
async def test_s21_temporary_child_is_never_restarted(node: sup.Node, world: World, reason: object) -> None:
    pid = await node.start(sup.Supervisor, FLAGS, [worker(world, "a", restart="temporary")])
    await end((await pids(pid))["a"], reason)
    assert await pids(pid) == {}
    assert (await sup.start_child(pid, worker(world, "a", restart="temporary"))).alive


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
async def test_s22_temporary_bystander_is_not_restarted_and_costs_nothing(
    node: sup.Node, world: World, strategy: Any
) -> None:
    specs = [worker(world, "a"), worker(world, "b", restart="temporary")]
    pid = await node.start(sup.Supervisor, flags(strategy, intensity=1), specs)
    await crash((await pids(pid))["a"])
    assert list(await pids(pid)) == ["a"]
    assert world.downs().count("b") == 1
    assert world.starts == {"a": 2, "b": 1}
    assert pid.alive


async def test_s24_one_for_one_replaces_the_failed_child_only(node: sup.Node, world: World) -> None:
    pid = await node.start(sup.Supervisor, FLAGS, [worker(world, "a"), worker(world, "b")])
    before = await pids(pid)
    await crash(before["a"])
    after = await pids(pid)
    assert after["b"] is before["b"]
    assert after["a"] is not before["a"]
    assert after["a"].alive


async def test_s25_one_for_all_stops_in_reverse_and_starts_in_order_for_one_restart(
    node: sup.Node, world: World
) -> None:
    pid = await node.start(sup.Supervisor, flags("one_for_all", intensity=1), [worker(world, id) for id in "abcd"])
    before = await pids(pid)
    world.clear()
    await crash(before["b"])
    assert world.downs() == ["b", "d", "c", "a"]  # b has crashed by itself
    assert world.ups() == ["a", "b", "c", "d"]
    after = await pids(pid)
    assert not set(before.values()) & set(after.values())
    assert not any(old.alive for old in before.values())
    assert pid.alive, "the group costs one restart"


async def test_s26_rest_for_one_restarts_the_later_ones_only(node: sup.Node, world: World) -> None:
    pid = await node.start(sup.Supervisor, flags("rest_for_one"), [worker(world, id) for id in "abcd"])
    before = await pids(pid)
    world.clear()
    await crash(before["b"])
    after = await pids(pid)
    assert world.downs() == ["b", "d", "c"]
    assert world.ups() == ["b", "c", "d"]
    assert after["a"] is before["a"]
    assert all(after[id] is not before[id] for id in "bcd")


async def test_s27_starts_in_order_and_stops_in_reverse_one_after_another(node: sup.Node, world: World) -> None:
    world.stop_seconds = {"a": 1, "b": 3, "c": 2}
    pid = await node.start(sup.Supervisor, FLAGS, [worker(world, id) for id in "abc"])
    assert world.ups() == ["a", "b", "c"]
    began = trio.current_time()
    await sup.stop(pid, sup.Shutdown())
    assert world.downs() == ["c", "b", "a"]
    assert trio.current_time() - began == pytest.approx(6)


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
async def test_s28_the_restart_beyond_the_intensity_ends_the_supervisor(
    node: sup.Node, world: World, strategy: Any
) -> None:
    pid = await node.start(sup.Supervisor, flags(strategy, 2, 10), [worker(world, "a"), worker(world, "b")])
    for _ in range(2):
        await crash((await pids(pid))["a"])
        assert (await pids(pid))["a"].alive
    last = await pids(pid)
    await crash(last["a"])
    assert pid.exit_reason == sup.Shutdown()
    assert not any(child.alive for child in last.values())


async def test_s28_static_supervisor_counts_all_its_children(node: sup.Node, world: World) -> None:
    pid = await node.start(sup.Supervisor, flags("one_for_one", 2, 10), [worker(world, id) for id in "abc"])
    before = await pids(pid)
    for id in "ab":
        await crash(before[id])
    assert pid.alive
    await crash(before["c"])
    assert pid.exit_reason == sup.Shutdown()


async def test_s28_dynamic_supervisor_counts_all_its_children(node: sup.Node, world: World) -> None:
    pid = await node.start(sup.DynamicSupervisor, intensity=2, period=10)
    children = [await sup.start_child(pid, worker(world, id)) for id in "abc"]
    for child in children[:2]:
        await crash(child)
    assert pid.alive
    await crash(children[2])
    assert pid.exit_reason == sup.Shutdown()


async def test_s29_restarts_wider_apart_than_the_period_never_add_up(node: sup.Node, world: World) -> None:
    pid = await node.start(sup.Supervisor, flags("one_for_one", 1, 5), [worker(world, "a")])
    for _ in range(10):
        await trio.sleep(5.01)
        await crash((await pids(pid))["a"])
    assert pid.alive
    await trio.sleep(5)
    await crash((await pids(pid))["a"])
    assert not pid.alive, "the window is inclusive"


@pytest.mark.parametrize("kind", ["one_for_one", "one_for_all", "rest_for_one", "dynamic"])
async def test_s30_failing_restart_is_retried_counts_each_time_and_escalates(
    node: sup.Node, world: World, kind: Any
) -> None:
    if kind == "dynamic":
        pid = await node.start(sup.DynamicSupervisor, intensity=4, period=10)
        child = await sup.start_child(pid, worker(world, "a"))
    else:
        pid = await node.start(sup.Supervisor, flags(kind, 4, 10), [worker(world, "a"), worker(world, "b")])
        child = (await pids(pid))["a"]
    world.failing_at["a"] = {2, 3}
    await crash(child)
    assert (await pids(pid))["a"].alive
    assert world.starts["a"] == 4
    world.failing.add("a")
    await crash((await pids(pid))["a"])
    assert pid.exit_reason == sup.Shutdown()
    assert world.starts["a"] == 5, "three restarts of the four were used before"


@pytest.mark.parametrize("strategy", ["one_for_one", "rest_for_one", "one_for_all"])
async def test_s31_hanging_restart_leaves_the_supervisor_answering(node: sup.Node, world: World, strategy: Any) -> None:
    pid = await node.start(sup.Supervisor, flags(strategy), [worker(world, "a"), worker(world, "b")])
    world.hanging.add("a")
    await crash((await pids(pid))["a"])
    assert (await pids(pid))["a"] is sup.RESTARTING
    assert (await sup.count_children(pid)).specs == 2
    with pytest.raises(sup.AlreadyPresent):
        await sup.start_child(pid, worker(world, "a"))
    with pytest.raises(sup.ChildRestarting):
        await sup.restart_child(pid, "a")
    with pytest.raises(sup.ChildRestarting):
        await sup.delete_child(pid, "a")
    await sup.terminate_child(pid, "a")
    assert (await pids(pid))["a"] is None
    assert (await pids(pid))["b"].alive


@pytest.mark.parametrize("kind", [sup.Supervisor, sup.DynamicSupervisor])
async def test_s31_shutdown_during_a_hanging_restart_is_prompt(node: sup.Node, world: World, kind: Any) -> None:
    pid = await node.start(kind)
    for id in "ab":
        await sup.start_child(pid, worker(world, id))
    world.hanging.add("a")
    await crash((await pids(pid))["a"])
    began = trio.current_time()
    await sup.stop(pid, sup.Shutdown())
    assert trio.current_time() == began
    assert world.downs()[-1] == "b"


@pytest.mark.parametrize("strategy", ["rest_for_one", "one_for_all"])
async def test_s31_crash_of_another_child_interrupts_a_hanging_restart_of_its_group(
    node: sup.Node, world: World, strategy: Any
) -> None:
    pid = await node.start(sup.Supervisor, flags(strategy), [worker(world, id) for id in "abc"])
    world.hanging.add("b")
    await crash((await pids(pid))["b"])
    first = (await pids(pid))["a"]
    world.hanging.clear()
    await crash(first)
    after = await pids(pid)
    assert after["a"] is not first
    assert all(child.alive for child in after.values())


async def test_s31_dynamic_child_in_a_hanging_restart(node: sup.Node, world: World) -> None:
    pid = await node.start(sup.DynamicSupervisor)
    child = await sup.start_child(pid, worker(world, "a"))
    world.hanging.add("a")
    await crash(child)
    assert await pids(pid) == {"a": sup.RESTARTING}
    other = await sup.start_child(pid, worker(world, "b"))
    await sup.terminate_child(pid, child)
    assert await pids(pid) == {"b": other}


async def test_s32_one_for_all_retries_the_whole_group(node: sup.Node, world: World) -> None:
    pid = await node.start(sup.Supervisor, flags("one_for_all"), [worker(world, id) for id in "abc"])
    world.failing_at["b"] = {2}
    before = await pids(pid)
    world.clear()
    await crash(before["c"])
    assert world.ups() == ["a", "a", "b", "c"]
    assert world.downs() == ["c", "b", "a", "a"]
    assert all(child.alive for child in (await pids(pid)).values())


async def test_s33_rest_for_one_retries_from_the_failing_child(node: sup.Node, world: World) -> None:
    pid = await node.start(sup.Supervisor, flags("rest_for_one"), [worker(world, id) for id in "abcd"])
    world.failing_at["c"] = {2}
    before = await pids(pid)
    world.clear()
    await crash(before["b"])
    assert world.ups() == ["b", "c", "d"], "b is started once and left alone"
    assert world.downs() == ["b", "d", "c"]
    assert (await pids(pid))["a"] is before["a"]


async def test_s38_failures_beyond_the_limit_climb_one_level(node: sup.Node, world: World) -> None:
    sub = sup.child(sup.Supervisor, flags("one_for_one", 1, 10), [worker(world, "leaf")], id="sub")
    root = await node.start(sup.Supervisor, FLAGS, [sub, worker(world, "other")])
    before = await pids(root)
    await sup.start_child(before["sub"], worker(world, "added"))
    for _ in range(2):
        await crash((await pids((await pids(root))["sub"]))["leaf"])
    after = await pids(root)
    assert after["other"] is before["other"]
    assert after["sub"] is not before["sub"]
    assert before["sub"].exit_reason == sup.Shutdown()
    assert list(await pids(after["sub"])) == ["leaf"], "added children do not come back"


@pytest.mark.parametrize("auto", ["any_significant", "all_significant"])
async def test_s40_exits_of_other_children_never_shut_down(node: sup.Node, world: World, auto: Any) -> None:
    specs = [
        worker(world, "a", restart="temporary"),
        worker(world, "b", restart="transient"),
        worker(world, "s", restart="temporary", significant=True),
    ]
    pid = await node.start(sup.Supervisor, sup.SupervisorFlags(auto_shutdown=auto), specs)
    for id in "ab":
        await end((await pids(pid))[id], sup.Normal())
    assert pid.alive


@pytest.mark.parametrize(
    ("restart", "reason"),
    [
        ("temporary", sup.Normal()),
        ("temporary", "abnormal"),
        ("transient", sup.Normal()),
        ("transient", sup.Shutdown("x")),
    ],
)
async def test_s41_any_significant_exit_stops_the_supervisor(
    node: sup.Node, world: World, restart: Any, reason: object
) -> None:
    specs = [worker(world, id, restart=restart, significant=id != "c") for id in "abc"]
    pid = await node.start(sup.Supervisor, sup.SupervisorFlags(auto_shutdown="any_significant"), specs)
    await end((await pids(pid))["a"], reason)
    assert pid.exit_reason == sup.Shutdown()
    assert world.downs() == ["a", "c", "b"]


async def test_s42_all_significant_waits_for_the_last_also_for_a_restarting_one(node: sup.Node, world: World) -> None:
    specs = [worker(world, id, restart="transient", significant=True) for id in "ab"]
    flags_ = sup.SupervisorFlags(intensity=5, auto_shutdown="all_significant")
    pid = await node.start(sup.Supervisor, flags_, specs)
    before = await pids(pid)
    world.failing_at["b"] = {2}
    sup.cast(before["b"], "crash")
    sup.cast(before["a"], sup.Exit(sup.Normal()))  # ends while b is between two tries
    await settle()
    assert world.starts["b"] == 3
    assert pid.alive, "the restarting one counts as active"
    await end((await pids(pid))["b"], sup.Normal())
    assert pid.exit_reason == sup.Shutdown()


async def test_s43_crash_of_a_transient_significant_child_restarts_it(node: sup.Node, world: World) -> None:
    specs = [worker(world, "s", restart="transient", significant=True), worker(world, "b")]
    pid = await node.start(sup.Supervisor, flags("one_for_all", auto_shutdown="any_significant"), specs)
    await crash((await pids(pid))["s"])
    assert (await pids(pid))["s"].alive
    await crash((await pids(pid))["b"])
    assert (await pids(pid))["s"].alive, "stopped by a sibling's strategy"
    await sup.terminate_child(pid, "s")
    assert (await pids(pid))["s"] is None
    assert pid.alive


async def test_s44_auto_shutdown_cascades_only_through_a_significant_supervisor(node: sup.Node, world: World) -> None:
    for significant in (False, True):
        sub_flags = sup.SupervisorFlags(auto_shutdown="any_significant")
        leaf = worker(world, "leaf", restart="temporary", significant=True)
        sub = sup.child(sup.Supervisor, sub_flags, [leaf], id="sub", restart="transient", significant=significant)
        root = await node.start(sup.Supervisor, sup.SupervisorFlags(auto_shutdown="any_significant"), [sub])
        await end((await pids((await pids(root))["sub"]))["leaf"], sup.Normal())
        await settle()
        assert root.alive is not significant
    dynamic = await node.start(sup.DynamicSupervisor)
    with pytest.raises(sup.BadChildSpec):
        await sup.start_child(dynamic, worker(world, "a", restart="temporary", significant=True))


@pytest.mark.parametrize("kind", [sup.Supervisor, sup.DynamicSupervisor])
async def test_s23_start_arguments_of_temporary_children_are_not_kept_alive(node: sup.Node, kind: Any) -> None:
    class Argument:
        pass

    async def child(argument: Argument, keyword: Argument) -> None:
        await sup.receive()

    pid: Any = await node.start(kind)
    kept = []
    for round in range(3):
        arguments = [Argument(), Argument()]
        kept += map(weakref.ref, arguments)
        spec = sup.child(child, arguments[0], keyword=arguments[1], id=round, restart="temporary")
        running = await sup.start_child(pid, spec)
        del arguments, spec
        if round == 0:
            sup.send(running, "go")  # ends by itself
        else:
            await sup.terminate_child(pid, running if kind is sup.DynamicSupervisor else round)
        await sup.wait_down(running)
        await settle()
    gc.collect()
    assert [ref() for ref in kept] == [None] * 6, "also while the supervisor and the pid live on"
    assert pid.alive
