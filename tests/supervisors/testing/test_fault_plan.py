"""Faults by plan, in a tree that knows nothing of it."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from actors import Broken, Echo, World, wait_forever, worker

import supervisors as sup
from supervisors.testing import FaultPlan, InjectedFault, assert_restarted, crash, hang, settle, slow, wait_down


class Door(sup.GenStatem):
    async def init(self) -> Any:
        return ("closed",)

    async def closed(self, event_type: sup.EventType, content: Any) -> sup.StateResult:
        return sup.next_state("open", sup.ReplyTo(event_type.from_, "opened"))

    async def open(self, event_type: sup.EventType, content: Any) -> sup.StateResult:
        return sup.next_state("closed", sup.ReplyTo(event_type.from_, "closed"))


async def test_the_nth_call_crashes_and_no_other(node: sup.Node) -> None:
    with FaultPlan(crash("echo", "handle_call", nth=2)) as plan:
        root = await node.start(sup.Supervisor, None, [sup.child(Echo, name="echo")])
        echo = node.registry.via("echo")
        assert await sup.call(echo, 1) == 1
        first = sup.whereis(echo)
        with pytest.raises(sup.ServerExited) as failed:
            await sup.call(echo, 2)
        reason = failed.value.reason
        assert isinstance(reason, sup.Crashed)
        assert isinstance(reason.exception, InjectedFault)
        assert (reason.exception.label, reason.exception.callback, reason.exception.call) == ("echo", "handle_call", 2)
        await settle()
        assert await sup.call(echo, 3) == 3, "counted over restarts"
        assert_restarted(root, "echo", times=1)
        (strike,) = plan.strikes
        assert (strike.pid, strike.call) == (first, 2)


async def test_a_start_crashes_and_init_does_not_run(node: sup.Node, world: World) -> None:
    with FaultPlan(crash("a", "init", nth=2, times=2, error=lambda: Broken("planned"))):
        flags = sup.SupervisorFlags(intensity=10)
        root = await node.start(sup.Supervisor, flags, [worker(world, "a")])
        sup.cast((await sup.which_child(root, "a")).pid, "crash")  # type: ignore[arg-type]
        await settle()
        assert world.ups() == ["a", "a"]
        assert_restarted(root, "a", times=3)


async def test_a_hanging_start_is_a_start_timeout(node: sup.Node) -> None:
    with FaultPlan(hang("Echo", "init")):
        with pytest.raises(sup.StartTimeout):
            await node.start(Echo, timeout=5)
        assert trio.current_time() == 5


async def test_a_hanging_call_is_a_call_timeout_for_its_caller(node: sup.Node) -> None:
    with FaultPlan(hang("Echo", "handle_call")):
        pid = await node.start(Echo)
        with pytest.raises(sup.CallTimeout):
            await sup.call(pid, 1)
        assert pid.alive


async def test_a_slow_callback_is_slow_each_time(node: sup.Node) -> None:
    with FaultPlan(slow("Echo", "handle_call", seconds=2)):
        pid = await node.start(Echo)
        for _ in range(3):
            await sup.call(pid, 1)
        assert trio.current_time() == 6


async def test_a_shielded_callback_outlives_its_kill(node: sup.Node) -> None:
    with FaultPlan(slow("Echo", "handle_cast", seconds=60, shielded=True)):
        pid = await node.start(Echo)
        sup.cast(pid, "message")
        await settle()
        sup.exit(pid, sup.Killed())
        assert await wait_down(pid) == sup.Killed()
        assert trio.current_time() == 60


async def test_states_of_a_machine_are_callbacks(node: sup.Node) -> None:
    with FaultPlan(crash("Door", "open", error=lambda: sup.Exit("jammed"))):
        pid = await node.start(Door)
        assert await sup.call(pid, "turn") == "opened"
        with pytest.raises(sup.ServerExited) as failed:
            await sup.call(pid, "turn")
        assert failed.value.reason == "jammed"


async def test_a_supervisor_and_a_plain_process_can_be_struck_at_their_start(node: sup.Node) -> None:
    with FaultPlan(crash("pool", "init"), crash("plain", "run")):
        with pytest.raises(sup.StartFailed):
            await node.start(sup.DynamicSupervisor, label="pool")
        assert isinstance(await wait_down(node.spawn(wait_forever, label="plain")), sup.Crashed)


async def test_a_pattern_fits_many_labels_and_their_calls_count_together(node: sup.Node) -> None:
    with FaultPlan(crash("worker-*", "handle_call", nth=2)) as plan:
        one, two, other = [await node.start(Echo, label=label) for label in ("worker-1", "worker-2", "other")]
        assert await sup.call(other, 1) == 1
        assert await sup.call(one, 1) == 1
        with pytest.raises(sup.ServerExited):
            await sup.call(two, 1)
        assert plan.never_struck == []


async def test_a_struck_server_is_still_what_it_was(node: sup.Node, reports: list[object]) -> None:
    with FaultPlan(crash("Echo", "handle_call")):
        pid = await node.start(Echo)
        server = await sup.get_state(pid)
        assert isinstance(server, Echo)
        assert type(server).__name__ == "Echo"
        assert type(server).__module__ == Echo.__module__
        with pytest.raises(sup.ServerExited):
            await sup.call(pid, 1)
    assert len(reports) == 1


async def test_nothing_strikes_after_the_block(node: sup.Node) -> None:
    with FaultPlan(crash("Echo", "handle_call"), strict=False) as plan:
        pid = await node.start(Echo)
    assert await sup.call(pid, 1) == 1
    assert await sup.call(await node.start(Echo), 1) == 1
    assert plan.strikes == []


@pytest.mark.parametrize("callback", ["init", "handle_call"])
async def test_plans_nest(node: sup.Node, callback: str) -> None:
    with FaultPlan(slow("Echo", callback, seconds=3)), FaultPlan(slow("Echo", callback, seconds=4)):
        await sup.call(await node.start(Echo), 1, timeout=10)
        assert trio.current_time() == 7


async def test_a_fault_that_never_struck_is_an_error(node: sup.Node) -> None:
    with pytest.raises(AssertionError, match=r"never struck.*handle_cal'"), FaultPlan(crash("Echo", "handle_cal")):
        await node.start(Echo)
    with pytest.raises(LookupError), FaultPlan(crash("Echo", "handle_cal")):
        raise LookupError("the error of the block goes before")


def test_a_plan_in_force_cannot_be_put_in_force_again() -> None:
    plan = FaultPlan()
    with plan, pytest.raises(RuntimeError, match="in force"):
        plan.__enter__()


@pytest.mark.parametrize(("field", "value"), [("nth", 0), ("times", 0)])
def test_calls_are_counted_from_one(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=field):
        crash("a", "b", **{field: value})  # type: ignore[arg-type]
