"""What servers of earlier actor libraries for Python got wrong. The faults of their supervisors are elsewhere."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
from actors import Broken, Echo
from scripted_machine import Machine
from scripted_server import Scripted

import supervisors as sup
from supervisors import EventType, keep_state
from supervisors.testing import settle


@pytest.mark.parametrize("supervised", [True, False])
async def test_triotp_a_caller_that_waits_for_ever_hears_of_the_crash(node: sup.Node, supervised: bool) -> None:
    async def handle(server: Scripted, request: Any, from_: sup.From) -> Any:
        await trio.sleep(1)
        raise Broken("handler")

    spec = sup.child(Scripted, call=handle, name="x")
    if supervised:
        await node.start(sup.Supervisor, sup.SupervisorFlags(), [spec])
    else:
        await node.start(Scripted, call=handle, name="x")
    with pytest.raises(sup.ServerExited) as exited:
        await sup.call(node.registry.via("x"), 1, timeout=math.inf)
    assert isinstance(exited.value.reason, sup.Crashed)
    assert trio.current_time() == 1


async def test_triotp_a_client_that_times_out_or_dies_leaves_the_server_alone(node: sup.Node) -> None:
    async def handle(server: Scripted, request: Any, from_: sup.From) -> Any:
        await trio.sleep(request)
        return sup.Reply(request)

    pid = await node.start(Scripted, call=handle)

    async def impatient() -> None:
        await sup.call(pid, 2, timeout=1)

    async def killed() -> None:
        await sup.call(pid, 2)

    clients = [node.spawn(impatient), node.spawn(killed)]
    await trio.sleep(0.5)
    sup.exit(clients[1], sup.Killed())
    assert isinstance(await sup.wait_down(clients[0]), sup.Crashed)
    assert await sup.call(pid, 0) == 0
    assert pid.alive


async def test_triotp_start_returns_a_server_that_is_registered_and_answers(node: sup.Node) -> None:
    async def slow(server: Scripted) -> None:
        await trio.sleep(3)

    pid = await node.start(Scripted, init=slow, name="x")
    assert node.registry.whereis("x") is pid
    request = sup.send_request(pid, "at once")
    await settle()
    assert request.done
    with pytest.raises(sup.StartFailed) as failed:
        await node.start(Scripted, init=raise_broken)
    assert isinstance(failed.value.__cause__, Broken), "a failed start is raised where it was asked for"


def raise_broken(server: Scripted) -> None:
    raise Broken("init")


async def test_pykka_a_call_to_a_server_that_is_ending_fails_with_its_end_and_not_with_a_timeout(
    node: sup.Node,
) -> None:
    async def terminate(server: Scripted, reason: object) -> None:
        await trio.sleep(3)

    pid = await node.start(Scripted, terminate=terminate)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sup.stop, pid, "stopped")
        await trio.sleep(1)
        assert pid.alive, "its terminate runs: the check of whether it lives is passed"
        with pytest.raises(sup.ServerExited) as exited:
            await sup.call(pid, "too late", timeout=math.inf)
    assert exited.value.reason == "stopped"
    assert trio.current_time() == 3


async def test_pykka_each_of_many_calls_around_the_end_is_answered_or_fails_at_once(node: sup.Node) -> None:
    outcomes: list[str] = []

    async def client(pid: sup.Pid[Any], crashes: bool) -> None:
        for n in range(20):
            if crashes and n == 10:
                sup.cast(pid, "crash")
            try:
                await sup.call(pid, "x", timeout=math.inf)
            except sup.ServerExited:
                outcomes.append("exited")
            except sup.NoProc:
                outcomes.append("no process")
            else:
                outcomes.append("answered")

    pid = await node.start(Echo)
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(client, pid, number == 0)
    assert len(outcomes) == 400
    assert set(outcomes) == {"answered", "exited", "no process"}
    assert trio.current_time() == 0


async def test_thespian_a_stop_overtakes_a_flood_of_timeouts(node: sup.Node) -> None:
    def handle(machine: Machine, event_type: EventType, content: Any, state: Any) -> Any:
        return keep_state(*[sup.GenericTimeout(n, 0) for n in range(10)])

    pid = await node.start(Machine, handle, sup.GenericTimeout("first", 0))
    for _ in range(10):
        await trio.lowlevel.checkpoint()
    await sup.stop(pid, "stopped", timeout=1)
    assert trio.current_time() == 0
