"""Links, monitors, exit signals: rows L01 to L11 of the conformance list."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from actors import Broken, Echo, World, in_process, wait_forever, worker

import supervisors as sup
from supervisors.testing import settle


async def test_l01_monitor_gives_exactly_one_down(node: sup.Node) -> None:
    async def body() -> None:
        pid = sup.spawn(wait_forever)
        ref = sup.monitor(pid)
        sup.exit(pid, "reason")
        assert await sup.receive() == sup.Down(ref, pid, "reason")
        dead = sup.monitor(pid)
        assert await sup.receive() == sup.Down(dead, pid, sup.NoProcReason())
        via = node.registry.via("name")
        unknown = sup.monitor(via)
        assert await sup.receive() == sup.Down(unknown, via, sup.NoProcReason())
        named = await node.start(Echo, name="name")
        by_name = sup.monitor(via)
        await sup.stop(named)
        assert await sup.receive() == sup.Down(by_name, via, sup.Normal())
        await trio.sleep(10)
        assert len(sup.self().mailbox) == 0

    await in_process(node, body)


async def test_l02_monitors_are_independent_and_demonitor_takes_one_off(node: sup.Node) -> None:
    async def body() -> None:
        pid, first = sup.spawn_monitor(wait_forever)
        second, third = sup.monitor(pid), sup.monitor(pid)
        sup.demonitor(second)
        sup.exit(pid, "x")
        await sup.wait_down(pid)
        sup.demonitor(third, flush=True)
        assert await sup.receive() == sup.Down(first, pid, "x")
        assert len(sup.self().mailbox) == 0
        for ref in (first, second, third):
            sup.demonitor(ref)
        other = sup.spawn(steal, sup.monitor(sup.self()))
        assert await sup.wait_down(other) == sup.Normal()

    async def steal(ref: sup.MonitorRef) -> None:
        with pytest.raises(sup.NotOwner):
            sup.demonitor(ref)

    await in_process(node, body)


async def test_l03_names_and_groups_are_free_before_anybody_hears_of_the_end(node: sup.Node) -> None:
    groups = sup.ProcessGroups()

    async def body() -> None:
        pid = await node.start(Echo, name="name")
        groups.join("group", pid)
        sup.monitor(pid)
        sup.trap_exits()
        sup.link(pid)
        sup.cast(pid, "crash")
        for _ in range(2):
            assert isinstance(await sup.receive(), (sup.Down, sup.ExitSignal))
            assert node.registry.whereis("name") is None
            assert groups.groups() == []
        await node.start(Echo, name="name")

    await in_process(node, body)


async def test_l03_the_failed_caller_finds_the_name_free(node: sup.Node) -> None:
    await node.start(Echo, name="name")
    with pytest.raises(sup.ServerExited):
        await sup.call(node.registry.via("name"), "crash")
    await node.start(Echo, name="name")


async def test_l04_abnormal_exit_takes_the_linked_peer_down_normal_does_not(node: sup.Node) -> None:
    async def linked_to(pid: sup.Pid[Any]) -> None:
        sup.link(pid)
        await trio.sleep_forever()

    for reason in (sup.Normal(), sup.Shutdown(), "abnormal"):
        pid = await node.start(Echo)
        peer = node.spawn(linked_to, pid)
        await settle()
        await sup.stop(pid, reason)
        await settle()
        if reason == sup.Normal():
            assert peer.alive
        else:
            assert peer.exit_reason == reason
    server, crashing = await node.start(Echo), await node.start(Echo)
    node.spawn(link_both, server, crashing)
    await settle()
    sup.cast(crashing, "crash")
    await settle()
    assert isinstance(server.exit_reason, sup.Crashed)
    assert server.exit_reason == crashing.exit_reason


async def link_both(*pids: sup.Pid[Any]) -> None:
    for pid in pids:
        sup.link(pid)
    await trio.sleep_forever()


async def test_l05_trapping_turns_exits_into_messages_also_of_the_killed(node: sup.Node) -> None:
    async def body() -> None:
        sup.trap_exits()
        for reason in (sup.Normal(), "abnormal", sup.Killed()):
            pid = sup.spawn_link(wait_forever)
            await settle()
            if reason == sup.Normal():
                await sup.stop(pid)
            else:
                sup.exit(pid, reason)
            assert await sup.receive() == sup.ExitSignal(pid, reason)

    await in_process(node, body)


async def test_l06_exit_normal_is_ignored_by_another_and_ends_oneself(node: sup.Node) -> None:
    pid = node.spawn(wait_forever)
    await settle()
    sup.exit(pid, sup.Normal())
    await settle()
    assert pid.alive

    async def ends_itself() -> None:
        sup.exit(sup.self(), sup.Normal())
        await trio.sleep_forever()

    assert await sup.wait_down(node.spawn(ends_itself)) == sup.Normal()


async def test_l07_kill_cannot_be_trapped_and_others_see_killed(node: sup.Node) -> None:
    async def trapping() -> None:
        sup.trap_exits()
        while True:
            await sup.receive()

    async def body() -> None:
        sup.trap_exits()
        pid = sup.spawn_link(trapping)
        await settle()
        sup.exit(pid, "trapped")
        await settle()
        assert pid.alive
        sup.exit(pid, sup.Killed())
        assert await sup.receive() == sup.ExitSignal(pid, sup.Killed())

    await in_process(node, body)


async def test_l07_killed_spreads_over_links_as_a_trappable_reason(node: sup.Node) -> None:
    async def middle() -> None:
        sup.link(last)
        await trio.sleep_forever()

    async def end_of_chain() -> None:
        sup.trap_exits()
        seen.append(await sup.receive())

    seen: list[object] = []
    last = node.spawn(end_of_chain)
    first = node.spawn(middle)
    await settle()
    sup.exit(first, sup.Killed())
    await settle()
    assert seen == [sup.ExitSignal(first, sup.Killed())]


async def test_l08_first_of_two_exit_signals_decides(node: sup.Node) -> None:
    pid = node.spawn(wait_forever)
    await settle()
    sup.exit(pid, "first")
    sup.exit(pid, "second")
    assert await sup.wait_down(pid) == "first"


async def test_l09_link_is_symmetric_idempotent_and_undone_by_unlink(node: sup.Node) -> None:
    async def body() -> None:
        sup.trap_exits()
        pid = sup.spawn(wait_forever)
        sup.link(pid)
        sup.link(pid)
        assert list(pid._links or ()) == [sup.self()]
        sup.unlink(pid)
        sup.exit(pid, "x")
        await sup.wait_down(pid)
        assert len(sup.self().mailbox) == 0
        sup.link(pid)
        assert await sup.receive() == sup.ExitSignal(pid, sup.NoProcReason())

    await in_process(node, body)


async def test_l10_killing_the_monitored_and_exiting_at_once_is_fine(node: sup.Node) -> None:
    async def watch(pid: sup.Pid[Any]) -> None:
        sup.monitor(pid)
        await trio.sleep_forever()

    async def killer() -> None:
        sup.exit(watcher, sup.Killed())

    watched = node.spawn(killer)
    watcher = node.spawn(watch, watched)
    await settle()
    assert not watched.alive
    assert not watcher.alive


async def test_l11_crash_report_of_a_plain_process(node: sup.Node, reports: list[object]) -> None:
    async def crashing() -> None:
        sup.link(sup.spawn(wait_forever, label="neighbour"))
        raise Broken("plain")

    async def parent() -> None:
        sup.spawn(crashing)
        await trio.sleep_forever()

    pid = node.spawn(parent)
    await settle()
    (report,) = reports
    assert isinstance(report, sup.CrashReport)
    assert report.ancestors == (pid,)
    assert [neighbour.label for neighbour in report.neighbours] == ["neighbour"]
    assert "crashing" in report.started_as


async def test_supervisor_stops_when_the_process_that_started_it_ends(node: sup.Node, world: World) -> None:
    async def owner() -> None:
        await sup.start_link(sup.Supervisor, sup.SupervisorFlags(), [worker(world, "a")])
        raise sup.Exit("owner is gone")

    assert await sup.wait_down(node.spawn(owner)) == "owner is gone"
    await settle()
    assert world.downs() == ["a"]
    assert node.processes == ()


async def test_functions_for_processes_say_so_outside_one(node: sup.Node) -> None:
    pid = node.spawn(wait_forever)
    for function in (sup.monitor, sup.link, sup.unlink):
        with pytest.raises(LookupError, match="not inside a process"):
            function(pid)
    for function in (sup.self, sup.trap_exits):
        with pytest.raises(LookupError):
            function()


async def test_l02_demonitor_with_flush_takes_out_that_down_and_no_other(node: sup.Node) -> None:
    async def body() -> None:
        dead = node.registry.via("nobody")
        first, second = sup.monitor(dead), sup.monitor(dead)
        assert repr(first) == f"<monitor of {dead!r} by {sup.self()!r}>"
        sup.send(sup.self(), "before")
        sup.demonitor(second, flush=True)
        sup.demonitor(second, flush=True)
        assert (await sup.receive()).ref is first
        assert await sup.receive() == "before"
        assert len(sup.self().mailbox) == 0

    await in_process(node, body)


async def test_l09_unlink_takes_back_an_exit_that_has_not_been_read(node: sup.Node) -> None:
    async def body() -> None:
        sup.trap_exits()
        sup.link(sup.self())
        assert sup.self()._links is None, "nobody is linked to itself"
        stranger = sup.spawn(wait_forever)
        sup.unlink(stranger)
        pid = sup.spawn_link(wait_forever)
        await settle()
        sup.exit(pid, "x")
        await sup.wait_down(pid)
        sup.send(sup.self(), "next")
        sup.unlink(pid)
        assert await sup.receive() == "next"

    await in_process(node, body)


async def test_l06_exit_of_oneself_from_another_task_of_the_process_cancels_it(node: sup.Node) -> None:
    async def leave() -> None:
        sup.exit(sup.self(), "left")

    async def body() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            await trio.sleep_forever()

    assert await sup.wait_down(node.spawn(body)) == "left"


async def test_stop_with_a_timeout_that_is_no_time_leaves_the_process_alone(node: sup.Node) -> None:
    pid = await node.start(Echo)
    for timeout in (-1, float("nan")):
        with pytest.raises(ValueError, match="seconds"):
            await sup.stop(pid, timeout=timeout)
    with pytest.raises(TypeError):
        await sup.stop(pid, timeout="soon")  # type: ignore[arg-type]
    assert await sup.call(pid, 1) == 1


class Incomparable:
    """Like an array of numpy: ``==`` gives no truth value."""

    def __eq__(self, other: object) -> Any:
        return self

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")

    __hash__ = object.__hash__


async def test_reasons_and_messages_that_cannot_be_compared_do_no_harm(node: sup.Node) -> None:
    reason = Incomparable()

    async def leaving() -> None:
        raise sup.Exit(reason)

    async def linked() -> None:
        sup.spawn_link(leaving)
        await trio.sleep_forever()

    assert await sup.wait_down(node.spawn(linked)) is reason
    await sup.stop(await node.start(Echo), reason)

    async def flushing() -> None:
        sup.trap_exits()
        ended, ref = sup.spawn_monitor(leaving)
        sup.link(ended)
        sup.send(sup.self(), reason)
        await settle()
        sup.demonitor(ref, flush=True)
        sup.unlink(ended)
        assert await sup.receive() is reason
        assert len(sup.self().mailbox) == 0

    await in_process(node, flushing)


class Brief(sup.GenServer):
    """Ends as soon as it is up, before whoever starts it can run again."""

    def __init__(self, reason: object) -> None:
        self.reason = reason

    async def init(self) -> Any:
        return sup.Continue()

    async def handle_continue(self, content: object) -> Any:
        return sup.Stop(self.reason)


async def test_a_server_that_ends_as_soon_as_it_is_up_is_told_by_its_own_reason(node: sup.Node) -> None:
    async def starter() -> None:
        pid, ref = await sup.start_monitor(Brief, "brief")
        assert await sup.receive() == sup.Down(ref, pid, "brief")
        await sup.start_link(Brief, sup.Normal())
        await trio.lowlevel.checkpoint()
        sup.trap_exits()
        pid = await sup.start_link(Brief, "brief")
        assert await sup.receive() == sup.ExitSignal(pid, "brief")

    await in_process(node, starter)
