"""The block of the node: what was started inside has ended when it is left, however it is left."""

from __future__ import annotations

import math
import signal
from typing import Any

import pytest
import trio
from actors import Broken, Defiant, Worker, World, wait_forever, worker

import supervisors as sup
from supervisors.testing import settle, virtual_clock


async def start_three(node: sup.Node, world: World) -> None:
    for id in "ab":
        await node.start(Worker, world, id)
    await node.start(sup.Supervisor, sup.SupervisorFlags(), [worker(world, "c"), worker(world, "d")])


ORDER = ["d", "c", "b", "a"]


async def test_leaving_the_block_stops_everything_in_reverse_order(world: World) -> None:
    world.stop_seconds = dict.fromkeys("abcd", 1.0)
    async with sup.open_node() as node:
        await start_three(node, world)
    assert world.downs() == ORDER
    assert trio.current_time() == 4
    assert node.processes == ()


async def test_exception_of_the_block_leaves_it_unwrapped_after_the_stop(world: World) -> None:
    async def raising() -> None:
        async with sup.open_node() as node:
            await start_three(node, world)
            raise Broken("block")

    with pytest.raises(Broken) as raised:
        await raising()
    assert world.downs() == ORDER
    assert raised.value.__cause__ is None


async def test_exception_of_the_block_is_not_lost_when_the_outside_is_cancelled_too(world: World) -> None:
    async def raising() -> None:
        async with sup.open_node() as node:
            await start_three(node, world)
            scope.cancel()
            raise Broken("block")

    with trio.CancelScope() as scope, pytest.raises(Broken):
        await raising()
    assert world.downs() == ORDER


async def test_cancelling_from_outside_stops_in_reverse_order(world: World) -> None:
    world.stop_seconds = dict.fromkeys("abcd", 1.0)
    with trio.move_on_after(5) as scope:
        async with sup.open_node() as node:
            await start_three(node, world)
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert world.downs() == ORDER
    assert trio.current_time() == 9


async def test_cancelling_while_a_start_is_under_way_leaves_nothing(world: World) -> None:
    world.hanging.add("slow")
    with trio.move_on_after(5):
        async with sup.open_node() as node:
            await node.start(Worker, world, "a")
            await node.start(Worker, world, "slow", name="slow")
    assert world.downs() == ["a"]
    assert node.registry.count == 0


async def test_cancelled_starter_kills_what_it_was_starting(node: sup.Node, world: World) -> None:
    world.hanging.add("slow")
    with trio.move_on_after(1):
        await node.start(Worker, world, "slow", name="slow")
    assert node.registry.count == 0
    await settle()
    assert node.processes == ()


async def test_supervisor_whose_start_is_given_up_stops_its_children_in_good_order(world: World) -> None:
    world.stop_seconds = dict.fromkeys("ab", 1.0)
    world.hanging.add("slow")
    async with sup.open_node() as node:
        with trio.move_on_after(1):
            await node.start(sup.Supervisor, sup.SupervisorFlags(), [worker(world, id) for id in ("a", "b", "slow")])
        assert trio.current_time() == 1
        await trio.sleep(2)
        dynamic = await node.start(sup.DynamicSupervisor)
        world.hanging.add("slower")
        sub = sup.child(sup.Supervisor, sup.SupervisorFlags(), [worker(world, id) for id in ("c", "slower")], id="sub")
        with trio.move_on_after(1):
            await sup.start_child(dynamic, sub)
        await sup.stop(dynamic, sup.Shutdown())
    assert world.downs() == ["b", "a", "c"]


async def test_slow_process_is_killed_after_its_time_and_a_supervisor_is_not(world: World) -> None:
    world.stop_seconds = {"a": 100, "c": 100}
    async with sup.open_node() as node:
        a = await node.start(Worker, world, "a")
        specs = [worker(world, "c", shutdown=200)]
        await node.start(sup.Supervisor, sup.SupervisorFlags(), specs)
    assert world.downs() == ["c"]
    assert a.exit_reason == sup.Killed()
    assert trio.current_time() == 105


async def test_process_that_resists_delays_the_end_but_not_the_stop_of_the_others(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    defiant = Defiant()
    async with trio.open_nursery() as nursery:

        async def release() -> None:
            await trio.sleep(1000)
            assert world.downs() == ["a"]
            defiant.released.set()

        nursery.start_soon(release)
        async with sup.open_node() as node:
            await node.start(Worker, world, "a")
            node.spawn(defiant.run)
            await settle()
    assert trio.current_time() == 1000
    assert "unkillable" in caplog.text
    assert "in run" in caplog.text, "its stack"


async def test_process_started_while_its_parent_ends_is_not_left_behind() -> None:
    class Spawning(sup.GenServer):
        async def terminate(self, reason: object) -> None:
            late.append(sup.spawn(wait_forever))

    late: list[sup.Pid[Any]] = []
    async with sup.open_node() as node:
        await node.start(Spawning)
    assert late[0].exit_reason == sup.Shutdown()


async def test_a_closed_node_takes_no_process() -> None:
    async with sup.open_node() as node:
        pass
    with pytest.raises(sup.NodeStopped):
        node.spawn(wait_forever)
    with pytest.raises(sup.NodeStopped):
        await node.start(sup.GenServer)
    with pytest.raises(LookupError):
        sup.spawn(wait_forever)


@pytest.mark.parametrize("where", ["process", "block"])
def test_ctrl_c_is_an_orderly_stop(where: str) -> None:
    world = World()

    async def interrupt() -> None:
        signal.raise_signal(signal.SIGINT)
        world.log.append(("undisturbed",))
        await trio.sleep_forever()

    async def main() -> None:
        async with sup.open_node() as node:
            await start_three(node, world)
            if where == "process":
                node.spawn(interrupt)
                await trio.sleep_forever()
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trio.run(main, clock=virtual_clock())
    assert world.downs() == ORDER
    assert (("undisturbed",) in world.log) is (where == "process"), "no process is hit in the middle"


def test_second_ctrl_c_kills_what_is_left() -> None:
    world = World()
    world.stop_seconds = {"a": 1e9}

    async def main() -> None:
        async with sup.open_node() as node:
            await node.start(sup.Supervisor, sup.SupervisorFlags(), [worker(world, "a", shutdown=float("inf"))])
            node.spawn(interrupt_twice)
            await trio.sleep_forever()

    async def interrupt_twice() -> None:
        signal.raise_signal(signal.SIGINT)
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trio.run(main, clock=virtual_clock())
    assert world.downs() == []


@pytest.mark.parametrize("fatal", [SystemExit, KeyboardInterrupt])
def test_fatal_exception_of_a_child_ends_the_program_in_good_order(fatal: type[BaseException]) -> None:
    world = World()

    async def leave() -> None:
        raise fatal(3)

    async def main() -> None:
        async with sup.open_node() as node:
            await node.start(Worker, world, "a")
            specs = [worker(world, "b"), sup.child(leave), worker(world, "c")]
            await node.start(sup.Supervisor, sup.SupervisorFlags(), specs)
            await trio.sleep_forever()

    with pytest.raises(fatal):
        trio.run(main, clock=virtual_clock())
    assert world.downs() == ["c", "b", "a"]


@pytest.mark.parametrize("fatal", [SystemExit, KeyboardInterrupt])
def test_fatal_exception_of_a_dynamic_child_ends_the_program_in_good_order(fatal: type[BaseException]) -> None:
    world = World()

    async def leave() -> None:
        await trio.sleep(1)
        raise fatal(3)

    async def main() -> None:
        async with sup.open_node() as node:
            dynamic = await node.start(sup.DynamicSupervisor)
            await sup.start_child(dynamic, worker(world, "a"))
            await sup.start_child(dynamic, sup.child(leave))
            await trio.sleep_forever()

    with pytest.raises(fatal):
        trio.run(main, clock=virtual_clock())
    assert world.downs() == ["a"]


async def test_report_hook_that_raises_hurts_nobody_and_can_be_taken_off(node: sup.Node, reports: list[object]) -> None:
    def faulty(report: object) -> None:
        raise Broken("hook")

    remove = sup.on_report(node, faulty)
    for _ in range(2):
        pid = await node.start(Worker, World(), "a")
        sup.cast(pid, "crash")
        assert isinstance(await sup.wait_down(pid), sup.Crashed)
        remove()
    assert len(reports) == 2


async def test_a04_stop_of_the_node_has_a_deadline_that_holds_for_everything(world: World) -> None:
    world.stop_seconds = dict.fromkeys("bcd", 1000.0)
    began = trio.current_time()
    async with sup.open_node(stop_seconds=7) as node:
        await node.start(Worker, world, "a")
        for id in "bcd":
            specs = [worker(world, id, shutdown=math.inf)]
            await node.start(sup.Supervisor, sup.SupervisorFlags(), specs)
    assert trio.current_time() - began == 7
    assert world.downs() == [], "nobody had the time"
    with pytest.raises(ValueError, match="stop_seconds"):
        sup.open_node(stop_seconds=-1)


def test_first_ctrl_c_during_a_stop_lets_it_go_on() -> None:
    world = World()
    world.stop_seconds = dict.fromkeys("ab", 5.0)

    class Interrupting(sup.GenServer):
        async def terminate(self, reason: object) -> None:
            signal.raise_signal(signal.SIGINT)
            await trio.sleep(1)
            world.log.append(("down", "interrupting"))

    async def main() -> None:
        async with sup.open_node() as node:
            specs = [worker(world, "a", shutdown=10), sup.child(Interrupting), worker(world, "b", shutdown=10)]
            await node.start(sup.Supervisor, sup.SupervisorFlags(), specs)

    with pytest.raises(KeyboardInterrupt):
        trio.run(main, clock=virtual_clock())
    assert world.downs() == ["b", "interrupting", "a"]


async def test_what_outlives_its_kill_has_the_interpreter_halted_where_that_is_allowed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    defiant, codes = Defiant(), []

    def leave(code: int) -> None:
        codes.append((code, trio.current_time()))
        defiant.released.set()

    monkeypatch.setattr("supervisors.nodes.node.os._exit", leave)
    async with sup.open_node(stop_seconds=20) as node:
        node.halts = True
        node.spawn(defiant.run)
        await settle()
    assert codes == [(1, 20)]
    assert "is halted" in caplog.text
    defiant = Defiant()
    async with sup.open_node(stop_seconds=20) as node:
        node.halts = True
        node.spawn(defiant.run)
        await settle()
        node.nursery.start_soon(release_later, defiant)  # type: ignore[union-attr]
    assert len(codes) == 1, "it ended in time"


async def release_later(defiant: Defiant) -> None:
    with trio.CancelScope(shield=True):
        await trio.sleep(10)
        defiant.released.set()


async def test_nothing_is_started_once_only_what_outlives_its_kill_is_left() -> None:
    async def resist() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(100)

    async def late(node: sup.Node) -> None:
        await trio.sleep(50)
        with pytest.raises(sup.NodeStopped):
            node.spawn(trio.sleep_forever)

    async with trio.open_nursery() as outside, sup.open_node() as node:
        node.spawn(resist)
        outside.start_soon(late, node)
        await settle()
    assert trio.current_time() == 100
