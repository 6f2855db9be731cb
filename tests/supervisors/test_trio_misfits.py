"""Where OTP and trio do not fit by themselves: one regression test or more per misfit."""

from __future__ import annotations

import contextvars
from typing import Any

import pytest
import trio
import trio.lowlevel
from actors import Broken, Defiant, World, crash, in_process, pids, wait_forever, worker

import supervisors as sup
from supervisors.testing import settle

FLAGS = sup.SupervisorFlags(intensity=10, period=10)


async def test_m01_outer_cancel_stops_children_one_after_another(world: World) -> None:
    world.stop_seconds = dict.fromkeys("abc", 1.0)
    with trio.CancelScope() as scope:
        async with sup.open_node() as node:
            await node.start(sup.Supervisor, FLAGS, [worker(world, id) for id in "abc"])
            scope.cancel()
            await trio.sleep_forever()
    assert world.downs() == ["c", "b", "a"]
    assert trio.current_time() == 3


async def test_m03_cancel_during_the_init_of_a_child_does_not_hang(world: World) -> None:
    world.hanging.add("b")
    with trio.move_on_after(5):
        async with sup.open_node() as node:
            await node.start(sup.Supervisor, FLAGS, [worker(world, "a"), worker(world, "b")])
    assert world.downs() == ["a"]
    assert trio.current_time() == 5


async def test_m03_stop_during_the_init_of_an_added_child_does_not_hang(node: sup.Node, world: World) -> None:
    world.hanging.add("b")
    pid = await node.start(sup.Supervisor, FLAGS, [worker(world, "a")])
    async with trio.open_nursery() as nursery:

        async def add() -> None:
            with pytest.raises(sup.ServerExited):
                await sup.start_child(pid, worker(world, "b"))

        nursery.start_soon(add)
        await settle()
        await sup.stop(pid, sup.Shutdown())
    assert world.downs() == ["a"]


async def test_m04_cleanup_scope_holds_until_the_kill_deadline_and_no_longer(node: sup.Node) -> None:
    log: list[Any] = []

    async def cleaning(seconds: float) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with sup.cleanup_scope():
                await trio.sleep(seconds)
                log.append(seconds)

    for seconds, reason in ((2, sup.Shutdown()), (4, sup.Killed())):
        pid = await node.start(sup.Supervisor, FLAGS, [sup.child(cleaning, seconds, shutdown=3)])
        child = (await pids(pid))["cleaning"]
        await settle()
        await sup.stop(pid, sup.Shutdown())
        assert child.exit_reason == reason
    assert log == [2]
    assert trio.current_time() == 5


async def test_m04_deadline_applies_to_a_clean_up_that_began_before_the_stop(node: sup.Node) -> None:
    async def cleaning() -> None:
        with sup.cleanup_scope():
            await trio.sleep_forever()

    pid = await node.start(sup.Supervisor, FLAGS, [sup.child(cleaning, shutdown=3)])
    child = (await pids(pid))["cleaning"]
    await trio.sleep(100)
    assert child.alive
    await sup.stop(pid, sup.Shutdown())
    assert trio.current_time() == 103


async def test_m04_cleanup_scope_outside_a_process_has_a_deadline() -> None:
    with trio.CancelScope() as outer:
        outer.cancel()
        with sup.cleanup_scope():
            await trio.sleep_forever()
    assert trio.current_time() == 5


async def test_m04_killing_a_supervisor_kills_all_below_at_once(node: sup.Node, world: World) -> None:
    world.stop_seconds = dict.fromkeys("ab", 100.0)
    sub = sup.child(sup.Supervisor, FLAGS, [worker(world, "a")], id="sub")
    pid = await node.start(sup.Supervisor, FLAGS, [sub, worker(world, "b")])
    before = await pids(pid)
    sup.exit(pid, sup.Killed())
    assert await sup.wait_down(pid) == sup.Killed()
    assert trio.current_time() == 0
    assert not any(child.alive for child in before.values())
    assert world.downs() == []


async def test_m04_supervisor_past_its_own_deadline_kills_what_is_left(node: sup.Node, world: World) -> None:
    world.stop_seconds = {"slow": 1000.0}
    sub = sup.child(sup.Supervisor, FLAGS, [worker(world, "slow", shutdown=500)], id="sub", shutdown=3)
    pid = await node.start(sup.Supervisor, FLAGS, [sub])
    await sup.stop(pid, sup.Shutdown())
    assert trio.current_time() == 3
    assert world.downs() == []


async def test_m05_error_masked_by_cancellation_is_logged(node: sup.Node, caplog: pytest.LogCaptureFixture) -> None:
    async def masking() -> None:
        try:
            await sup.receive()
            pid._scope.cancel()
            raise Broken("masked")
        finally:
            await trio.lowlevel.checkpoint()

    pid = node.spawn(masking)
    sup.send(pid, "go")
    assert await sup.wait_down(pid) == sup.Shutdown()
    (record,) = caplog.records
    assert "masked an error" in record.getMessage()
    assert isinstance(record.masked, Broken)  # type: ignore[attr-defined]


async def test_m05_an_error_that_the_canceller_is_handling_is_not_the_cancelled_ones(
    node: sup.Node, caplog: pytest.LogCaptureFixture
) -> None:
    async def waiting() -> None:
        await trio.sleep_forever()

    pid = node.spawn(waiting)
    await trio.testing.wait_all_tasks_blocked()
    try:
        raise Broken("the canceller's own")
    except Broken:
        sup.exit(pid, sup.Killed())
    assert await sup.wait_down(pid) == sup.Killed()
    assert caplog.records == []


async def test_m05_a_server_killed_while_it_terminates_masks_nothing(
    node: sup.Node, caplog: pytest.LogCaptureFixture
) -> None:
    class Lingering(sup.GenServer):
        async def handle_cast(self, message: object) -> Any:
            return sup.Stop()

        async def terminate(self, reason: object) -> None:
            await trio.sleep_forever()

    pid = await node.start(Lingering)
    sup.cast(pid, "stop")
    await settle()
    sup.exit(pid, sup.Killed())
    assert await sup.wait_down(pid) == sup.Killed()
    assert caplog.records == []


async def test_m05_returning_although_cancelled_is_normal_with_a_warning(
    node: sup.Node, caplog: pytest.LogCaptureFixture
) -> None:
    async def swallowing() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            return

    pid = node.spawn(swallowing)
    await settle()
    sup.exit(pid, "x")
    assert await sup.wait_down(pid) == sup.Normal()
    assert "although it was told to exit" in caplog.text


async def test_m06_crash_of_a_child_cancels_no_sibling_and_is_one_exception(
    node: sup.Node, world: World, reports: list[object]
) -> None:
    async def crashing_in_a_nursery() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_forever)
            await trio.sleep(1)
            raise Broken("inside")

    spec = sup.child(crashing_in_a_nursery, restart="temporary")
    pid = await node.start(sup.Supervisor, FLAGS, [worker(world, "a"), spec])
    await trio.sleep(2)
    assert (await pids(pid))["a"].alive
    crashes = [report for report in reports if isinstance(report, sup.CrashReport)]
    assert [type(report.reason.exception) for report in crashes if isinstance(report.reason, sup.Crashed)] == [Broken]


async def test_m06_exit_raised_in_a_nursery_is_the_exit_reason(node: sup.Node) -> None:
    async def exiting() -> None:
        async with trio.open_nursery():
            raise sup.Exit("reason")

    assert await sup.wait_down(node.spawn(exiting)) == "reason"


async def test_m06_two_errors_at_once_stay_a_group(node: sup.Node) -> None:
    async def fail() -> None:
        raise Broken("one of two")

    async def crashing() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            nursery.start_soon(fail)

    reason = await sup.wait_down(node.spawn(crashing))
    assert isinstance(reason, sup.Crashed)
    assert isinstance(reason.exception, ExceptionGroup)
    assert len(reason.exception.exceptions) == 2


async def test_m07_a_flood_of_messages_does_not_starve_other_tasks(node: sup.Node) -> None:
    pid = await node.start(Counting)
    for _ in range(10_000):
        sup.cast(pid, 1)
    turns = 0
    while (await sup.get_state(pid)).count < 10_000:
        turns += 1
    assert turns > 10, "system messages and other tasks get their turn in between"


class Counting(sup.GenServer):
    count = 0

    async def handle_cast(self, message: int) -> None:
        self.count += message


async def test_m07_stop_overtakes_a_flood(node: sup.Node) -> None:
    pid = await node.start(Counting)
    for _ in range(10_000):
        sup.cast(pid, 1)
    await sup.stop(pid)
    assert pid.exit_reason == sup.Normal()


async def test_m08_restart_runs_in_the_supervisor_s_context(node: sup.Node) -> None:
    trace: contextvars.ContextVar[str] = contextvars.ContextVar("trace", default="supervisor's")
    seen = []

    async def child() -> None:
        seen.append(trace.get())
        if len(seen) == 1:
            raise sup.Exit("again")
        await trio.sleep_forever()

    pid = await node.start(sup.Supervisor, FLAGS)
    trace.set("requester's")
    await sup.start_child(pid, sup.child(child))
    await settle()
    assert seen == ["requester's", "supervisor's"]


async def test_m09_requester_that_dies_does_not_undo_the_start(node: sup.Node, world: World) -> None:
    pid = await node.start(sup.Supervisor, FLAGS)

    class SlowWorker(sup.GenServer):
        async def init(self) -> None:
            await trio.sleep(5)

    async def requester() -> None:
        await sup.start_child(pid, sup.child(SlowWorker))

    asking = node.spawn(requester)
    await trio.sleep(1)
    sup.exit(asking, sup.Killed())
    await trio.sleep(10)
    assert (await pids(pid))["SlowWorker"].alive


async def test_m09_child_whose_init_asks_its_own_supervisor_for_a_child_is_told_of_the_deadlock(
    node: sup.Node, world: World
) -> None:
    class Nested(sup.GenServer):
        async def init(self) -> None:
            await sup.start_child(pid, worker(world, "nested"))

    pid = await node.start(sup.Supervisor, FLAGS)
    with pytest.raises(sup.StartFailed) as failed:
        await sup.start_child(pid, sup.child(Nested))
    assert isinstance(failed.value.__cause__, sup.Deadlock)


async def test_m10_link_cancels_the_peer_and_never_raises_into_it(node: sup.Node) -> None:
    seen: list[BaseException] = []

    async def peer() -> None:
        sup.link(pid)
        try:
            await trio.sleep_forever()
        except BaseException as exc:
            seen.append(exc)
            raise

    pid = node.spawn(wait_forever)
    linked = node.spawn(peer)
    await settle()
    sup.exit(pid, "reason")
    assert await sup.wait_down(linked) == "reason"
    assert [type(exc) for exc in seen] == [trio.Cancelled]


# -- faults of earlier libraries of this kind


async def test_client_that_times_out_does_not_kill_the_server(node: sup.Node) -> None:
    class Slow(sup.GenServer):
        async def handle_call(self, request: Any, from_: sup.From) -> Any:
            await trio.sleep(10)
            return sup.Reply(request)

    pid = await node.start(Slow)
    with pytest.raises(sup.CallTimeout):
        await sup.call(pid, 1, timeout=1)
    with trio.move_on_after(1):
        await sup.call(pid, 2)
    assert await sup.call(pid, 3, timeout=100) == 3


async def test_call_between_the_end_of_a_server_and_its_burial_fails_at_once(node: sup.Node) -> None:
    class Leaving(sup.GenServer):
        async def terminate(self, reason: object) -> None:
            request.append(sup.send_request(sup.self(), "too late"))
            await trio.sleep(1)

    request: list[sup.RequestId] = []
    pid = await node.start(Leaving)
    await sup.stop(pid)
    with pytest.raises(sup.ServerExited):
        await request[0].wait()
    with pytest.raises(sup.NoProc):
        await sup.call(pid, 1)
    assert trio.current_time() == 1


async def test_supervisor_at_its_limit_ends_by_itself_and_the_program_goes_on(node: sup.Node, world: World) -> None:
    pid = await node.start(sup.Supervisor, sup.SupervisorFlags(intensity=0), [worker(world, "a")])
    await crash((await pids(pid))["a"])
    assert pid.exit_reason == sup.Shutdown()
    assert trio.current_time() == 0, "nothing polls"


async def test_cancelled_process_leaks_no_name(node: sup.Node) -> None:
    async def named() -> None:
        node.registry.register("name")
        await trio.sleep_forever()

    pid = node.spawn(named)
    await settle()
    sup.exit(pid, "x")
    await sup.wait_down(pid)
    assert node.registry.count == 0


async def test_child_that_ignores_its_kill_keeps_its_name_until_it_has_really_ended(node: sup.Node) -> None:
    defiant = Defiant()

    async def named() -> None:
        node.registry.register("name")
        await defiant.run()

    pid = node.spawn(named)
    await settle()
    sup.exit(pid, sup.Killed())
    await trio.sleep(10)
    assert node.registry.whereis("name") is pid
    defiant.released.set()
    await sup.wait_down(pid)
    assert node.registry.count == 0


async def test_calls_from_two_tasks_of_one_process_are_no_deadlock(node: sup.Node) -> None:
    class Echo(sup.GenServer):
        async def handle_call(self, request: Any, from_: sup.From) -> Any:
            await trio.sleep(1)
            return sup.Reply(request)

    pid = await node.start(Echo)

    async def body() -> list[Any]:
        answers: list[Any] = []

        async def ask(n: int) -> None:
            answers.append(await sup.call(pid, n))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, 1)
            nursery.start_soon(ask, 2)
        return sorted(answers)

    assert await in_process(node, body) == [1, 2]
