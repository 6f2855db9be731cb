"""The edges of a process's life: tasks that outlive it, starts that come too late, waits that are given up."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from actors import Broken, Echo, in_process, wait_forever

import supervisors as sup
from supervisors.nodes import node as node_module
from supervisors.nodes.node import stack_of
from supervisors.processes.pid import Pid
from supervisors.processes.process import launch, run_process, watch_exit
from supervisors.testing import settle


async def test_a_server_may_be_spawned_without_waiting_for_it(node: sup.Node) -> None:
    pid: Any = node.spawn(Echo)  # type: ignore[arg-type]
    assert not pid.ready
    assert await sup.call(pid, 1) == 1
    assert pid.ready


async def test_the_end_of_a_dead_process_is_told_at_once(node: sup.Node) -> None:
    pid = node.spawn(wait_forever)
    sup.exit(pid, sup.Killed())
    await sup.wait_down(pid)
    told: list[Any] = []
    watch_exit(pid, told.append)
    assert told == [pid]
    assert stack_of(pid) == "  (no task)"
    assert pid.started_as == ""


async def test_a_task_that_outlives_its_process_signals_nobody(node: sup.Node) -> None:
    released, over = trio.Event(), trio.Event()

    async def left_behind() -> None:
        with sup.cleanup_scope():
            await released.wait()
        sup.exit(sup.self(), "too late")
        over.set()

    async def process() -> None:
        assert node.nursery is not None
        node.nursery.start_soon(left_behind)
        await settle()

    pid = node.spawn(process)
    assert await sup.wait_down(pid) == sup.Normal()
    released.set()
    await over.wait()
    assert pid.exit_reason == sup.Normal()


async def test_a_task_of_a_process_ends_it_by_a_signal_to_itself(node: sup.Node) -> None:
    async def other_task() -> None:
        sup.exit(sup.self(), "enough")
        await trio.sleep_forever()

    async def process() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other_task)

    assert await sup.wait_down(node.spawn(process)) == "enough"


async def test_a_process_that_cannot_be_launched_frees_its_name(node: sup.Node) -> None:
    async with trio.open_nursery() as closed:
        pass
    for nursery, error in ((None, sup.NodeStopped), (closed, RuntimeError)):
        pid: Pid[Any] = Pid(node, "late")
        node.registry.register("late", pid)
        with pytest.raises(error):
            launch(nursery, pid, wait_forever, ())
        assert not pid.alive
        assert node.registry.whereis("late") is None


async def test_nobody_is_told_of_a_process_whose_run_is_gone(node: sup.Node) -> None:
    pid: Pid[Any] = Pid(node, "abandoned")
    told: list[Any] = []
    watch_exit(pid, told.append)
    run = run_process(pid, wait_forever, ())
    run.send(None)
    run.close()  # what the garbage collector does to a coroutine
    assert told == []


async def test_two_tasks_cannot_read_one_mailbox(node: sup.Node) -> None:
    async def process() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sup.receive)
            await settle()
            with pytest.raises(trio.BusyResourceError, match="another task"):
                await sup.receive()
            nursery.cancel_scope.cancel()

    await in_process(node, process)


async def test_a_full_mailbox_refuses_a_message(node: sup.Node) -> None:
    class Small(sup.GenServer):
        mailbox_limit = 1

    pid = await node.start(Small)
    await sup.suspend(pid)
    sup.send(pid, "fits")
    with pytest.raises(sup.MailboxFull) as full:
        sup.send(pid, "does not")
    assert full.value.limit == 1
    sup.send(node.registry.via("nobody"), "lost without a word")


async def test_a_question_to_a_busy_server_times_out_or_is_given_up(node: sup.Node) -> None:
    class Busy(sup.GenServer):
        async def handle_cast(self, message: Any) -> None:
            await trio.sleep(100)

    pid = await node.start(Busy)
    sup.cast(pid, "work")
    await settle()
    with pytest.raises(sup.CallTimeout):
        await sup.get_state(pid, timeout=1)
    with trio.move_on_after(1) as scope:
        await sup.get_state(pid)
    assert scope.cancelled_caught
    assert not pid._calls, "nothing is kept of a question that nobody waits for"


async def test_whose_call_it_is_shows(node: sup.Node) -> None:
    class Shows(sup.GenServer):
        async def handle_call(self, request: Any, from_: sup.From) -> sup.Reply:
            return sup.Reply(repr(from_))

    assert await sup.call(await node.start(Shows), None) == "<from None to <0.1 Shows>>"
    assert repr(node) == "<Node test: 1 processes of its own>"


async def test_a_fault_in_the_stop_kills_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> bool:
        raise Broken("stop")

    async def program() -> None:
        async with sup.open_node() as node:
            left.append(node.spawn(wait_forever))
            monkeypatch.setattr(node_module, "stop_child", broken)

    left: list[sup.Pid[Any]] = []
    with pytest.raises(ExceptionGroup) as caught:
        await program()
    assert caught.group_contains(Broken)
    assert left[0].exit_reason == sup.Killed()


async def test_an_error_in_the_nursery_of_a_node_is_what_trio_makes_of_it() -> None:
    async def failing() -> None:
        raise Broken("in the nursery")

    async def program() -> None:
        async with sup.open_node() as node:
            assert node.nursery is not None
            node.nursery.start_soon(failing)
            await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await program()
    assert caught.group_contains(Broken)
