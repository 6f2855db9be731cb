"""How a generic server starts, stops and cleans up: rows G01 to G03, G16 and G19."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from actors import Broken, Echo, in_process
from scripted_server import Scripted, crashing, wait

import supervisors as sup
from supervisors.servers.behaviour import Behaviour
from supervisors.testing import settle, virtual_clock


async def test_g01_ready_when_start_returns(node: sup.Node) -> None:
    ready = []

    async def slow(server: Scripted) -> None:
        await trio.sleep(3)
        ready.append(True)

    pid = await node.start(Scripted, init=slow, name="slow")
    assert ready == [True]
    assert sup.whereis(node.registry.via("slow")) is pid

    async def starters() -> None:
        linked = await sup.start_link(Scripted)
        monitored, ref = await sup.start_monitor(Scripted)
        sup.exit(monitored, "bye")
        down = await sup.receive()
        assert (down.ref, down.pid, down.reason) == (ref, monitored, "bye")
        sup.trap_exits()
        sup.exit(linked, "bye")
        assert await sup.receive() == sup.ExitSignal(linked, "bye")

    await in_process(node, starters)


async def test_g01_init_that_crashes_cannot_hang_the_starter(node: sup.Node) -> None:
    async def die(server: Scripted) -> None:
        await trio.sleep(1)
        sup.exit(sup.self(), sup.Killed())
        await trio.sleep_forever()

    with pytest.raises(sup.StartFailed) as failed:
        await node.start(Scripted, init=die)
    assert failed.value.reason == sup.Killed()


@pytest.mark.parametrize("how", ["ignore", "stop", "exit", "raise", "timeout"])
async def test_g02_failed_starts_are_told_apart_and_free_the_name_at_once(
    node: sup.Node, how: str, reports: list[object]
) -> None:
    def ends(server: Scripted) -> Any:
        if how == "ignore":
            return sup.IGNORE
        if how == "stop":
            return sup.Stop("reason")
        if how == "exit":
            raise sup.Exit("reason")
        if how == "raise":
            raise Broken("init")
        return wait()

    for _ in range(100):
        if how == "ignore":
            assert await node.start(Scripted, init=ends, name="x") is sup.IGNORE
        elif how == "timeout":
            with pytest.raises(sup.StartTimeout):
                await node.start(Scripted, init=ends, name="x", timeout=1)
        else:
            with pytest.raises(sup.StartFailed) as failed:
                await node.start(Scripted, init=ends, name="x")
            if how == "raise":
                assert isinstance(failed.value.__cause__, Broken)
            else:
                assert failed.value.reason == "reason"
        assert node.registry.whereis("x") is None
    assert reports == [], "the starter was told: no crash report"
    await settle()
    assert node.processes == ()


async def test_g03_same_name_twice(node: sup.Node) -> None:
    first = await node.start(Echo, name="echo")
    with pytest.raises(sup.AlreadyStarted) as taken:
        await node.start(Echo, name="echo")
    assert taken.value.pid is first
    assert await sup.call(first, 1) == 1


@pytest.mark.parametrize("by", ["pid", "name"])
async def test_g16_stop_runs_terminate_and_waits(node: sup.Node, by: str) -> None:
    seen = []

    async def slow(server: Scripted, reason: object) -> None:
        await trio.sleep(3)
        seen.append((trio.current_time(), reason))

    pid = await node.start(Scripted, terminate=slow, name="x")
    target: Any = pid if by == "pid" else node.registry.via("x")
    with pytest.raises(TypeError):
        await sup.stop(target, timeout="soon")  # type: ignore[arg-type]
    assert pid.alive
    await sup.stop(target, "reason")
    assert seen == [(3, "reason")]
    assert pid.exit_reason == "reason"
    with pytest.raises(sup.NoProc):
        await sup.stop(target)


async def test_g16_stop_of_one_that_dies_otherwise_or_hangs(node: sup.Node) -> None:
    pid = await node.start(Scripted, terminate=crashing)
    with pytest.raises(sup.ServerExited):
        await sup.stop(pid)
    hanging = await node.start(Scripted, terminate=wait)
    with pytest.raises(sup.CallTimeout):
        await sup.stop(hanging, timeout=2)


async def test_g19_terminate_runs_on_stop_crash_and_shutdown_not_on_kill(node: sup.Node) -> None:
    seen: list[object] = []

    async def note(server: Scripted, reason: object) -> None:
        await trio.sleep(1)
        seen.append(reason)

    stopped, crashed, killed = [await node.start(Scripted, terminate=note, cast=crashing) for _ in range(3)]
    await sup.stop(stopped, "stop")
    sup.cast(crashed, 1)
    await sup.wait_down(crashed)
    sup.exit(killed, sup.Killed())
    assert await sup.wait_down(killed) == sup.Killed()
    spec = sup.child(Scripted, terminate=note)
    supervisor = await node.start(sup.Supervisor, sup.SupervisorFlags(), [spec])
    await sup.stop(supervisor, sup.Shutdown())
    assert seen == ["stop", crashed.exit_reason, sup.Shutdown()]


async def test_g19_crash_in_terminate_becomes_the_reason(node: sup.Node) -> None:
    pid = await node.start(Scripted, terminate=crashing)
    with pytest.raises(sup.ServerExited):
        await sup.stop(pid, "asked")
    assert isinstance(pid.exit_reason, sup.Crashed)
    assert isinstance(pid.exit_reason.exception, Broken)


async def test_g19_terminate_runs_when_the_parent_of_one_that_traps_exits_ends(node: sup.Node) -> None:
    seen: list[object] = []

    def init(server: Scripted) -> None:
        sup.trap_exits()

    async def starter() -> None:
        pids.append(await sup.start_link(Scripted, init=init, terminate=lambda _, reason: seen.append(reason)))
        raise sup.Exit("gone")

    pids: list[sup.Pid[Any]] = []
    await sup.wait_down(node.spawn(starter))
    assert await sup.wait_down(pids[0]) == "gone"
    assert seen == ["gone"]


def test_g19_what_must_end_the_program_ends_it_from_terminate_too() -> None:
    async def main() -> None:
        async with sup.open_node() as node:
            pid = await node.start(Scripted, terminate=leave)
            await sup.stop(pid)

    def leave(*_: Any) -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit) as left:
        trio.run(main, clock=virtual_clock())
    assert left.value.code == 3


async def test_stop_with_a_reply_answers_before_the_end(node: sup.Node) -> None:
    pid = await node.start(Scripted, call=lambda *_: sup.Stop("reason", reply=None))
    assert await sup.call(pid, 1) is None
    assert await sup.wait_down(pid) == "reason"


async def test_g02_link_and_monitor_of_one_that_ignores(node: sup.Node) -> None:
    async def starter() -> None:
        assert await sup.start_link(Scripted, init=lambda _: sup.IGNORE) is sup.IGNORE
        pid, ref = await sup.start_monitor(Scripted, init=lambda _: sup.IGNORE)
        assert pid is sup.IGNORE
        assert (await sup.receive()).ref is ref

    await in_process(node, starter)


async def test_a_plain_function_is_ready_at_once_and_takes_keywords_from_a_spec(node: sup.Node) -> None:
    seen = []

    async def plain(*, key: str) -> None:
        seen.append(key)
        await trio.sleep_forever()

    supervisor = await node.start(sup.Supervisor, sup.SupervisorFlags(), [sup.child(plain, key="value")])
    await settle()
    assert seen == ["value"]
    start: Any = node.start
    pid = await start(plain, key="other")
    await settle()
    assert seen == ["value", "other"]
    assert pid.ready
    assert (await sup.count_children(supervisor)).active == 1


async def test_behaviour_is_no_server_itself(node: sup.Node) -> None:
    with pytest.raises(sup.StartFailed) as failed:
        await node.start(Behaviour)
    assert isinstance(failed.value.__cause__, NotImplementedError)
