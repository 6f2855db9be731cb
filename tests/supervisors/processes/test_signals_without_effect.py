"""Links, monitors and stops that have nothing to do: each is a no-op, or says what is wrong."""

from __future__ import annotations

import pytest
import trio
from actors import in_process, wait_forever

import supervisors as sup
from supervisors.testing import settle


async def test_monitors_of_a_process_end_with_it(node: sup.Node) -> None:
    watched = node.spawn(wait_forever)

    async def watch() -> None:
        sup.monitor(watched)

    await in_process(node, watch)
    assert not watched._monitored_by
    sup.exit(watched, sup.Killed())
    await sup.wait_down(watched)


async def test_taking_a_monitor_off_that_has_told_already(node: sup.Node) -> None:
    dead = node.spawn(trio.lowlevel.checkpoint)
    await sup.wait_down(dead)

    async def watch() -> None:
        ref = sup.monitor(dead)
        ref.deliver("again")
        sup.send(sup.self(), "other")
        sup.demonitor(ref)
        assert [await sup.receive(), await sup.receive()] == [sup.Down(ref, dead, sup.NoProcReason()), "other"]
        sup.send(sup.self(), "other")
        sup.demonitor(ref, flush=True)
        assert await sup.receive() == "other"

    await in_process(node, watch)


async def test_unlinking_takes_back_the_signal_that_waits(node: sup.Node) -> None:
    async def process() -> None:
        sup.trap_exits()
        linked = sup.spawn_link(trio.lowlevel.checkpoint)
        await settle()
        assert len(sup.self().mailbox) == 1
        sup.unlink(linked)
        assert len(sup.self().mailbox) == 0

    await in_process(node, process)


async def test_links_to_oneself_and_unlinking_of_strangers(node: sup.Node) -> None:
    stranger = node.spawn(wait_forever)

    async def process() -> None:
        sup.unlink(stranger)
        sup.link(sup.self())
        await trio.lowlevel.checkpoint()

    await in_process(node, process)
    assert stranger.alive


@pytest.mark.parametrize("timeout", [-1, float("nan")])
async def test_a_timeout_that_is_none_stops_nobody(node: sup.Node, timeout: float) -> None:
    pid = node.spawn(wait_forever)
    with pytest.raises(ValueError, match="timeout"):
        await sup.stop(pid, timeout=timeout)
    await settle()
    assert pid.alive
