"""Whatever a process does to resist, the rest of its tree answers, and the log names it."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import pytest
import trio
from actors import Broken, Defiant, Echo, pids

import supervisors as sup
from supervisors.testing import settle, virtual_clock


class SwallowsCancellation(Defiant):
    """Catches it and goes on waiting."""


class ShieldsItself(Defiant):
    """Hears of no cancellation at all."""

    async def run(self) -> None:
        with trio.CancelScope(shield=True):
            await self.released.wait()


class RaisesInItsCleanUp(Defiant):
    async def run(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise Broken("in the clean-up")


@pytest.mark.parametrize("kind", ["static", "dynamic"])
@pytest.mark.parametrize("how", [SwallowsCancellation, ShieldsItself, RaisesInItsCleanUp])
async def test_process_that_resists_its_stop_is_named_and_the_rest_of_the_tree_answers(
    node: sup.Node, caplog: pytest.LogCaptureFixture, kind: str, how: type[Defiant]
) -> None:
    bad = how()
    caplog.set_level(logging.WARNING)
    pid: Any = await node.start(sup.Supervisor if kind == "static" else sup.DynamicSupervisor)
    stranger = await node.start(Echo)
    sibling = await sup.start_child(pid, sup.child(Echo, id="sibling"))
    child = await sup.start_child(pid, sup.child(bad.run, id="bad", label="culprit", shutdown=1))
    await settle()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sup.terminate_child, pid, child if kind == "dynamic" else "bad")
        for _ in range(8):
            await trio.sleep(0.5)
            assert await sup.call(sibling, 1) == 1
            assert await sup.call(stranger, 1) == 1
            assert "sibling" in await pids(pid)
        another = await sup.start_child(pid, sup.child(Echo, id="another"))
        assert await sup.call(another, 1) == 1
        assert repr(child) in caplog.text
        bad.released.set()
    assert not child.alive


async def test_process_that_raises_in_its_clean_up_has_that_as_its_reason(node: sup.Node) -> None:
    pid = node.spawn(RaisesInItsCleanUp().run)
    await settle()
    sup.exit(pid, sup.Shutdown())
    reason = await sup.wait_down(pid)
    assert isinstance(reason, sup.Crashed)
    assert isinstance(reason.exception, Broken)


def test_process_without_a_checkpoint_for_100_ms_is_named_and_the_rest_of_the_tree_answers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def computing() -> None:
        await sup.receive()
        until = time.monotonic() + 0.1
        while time.monotonic() < until or "no checkpoint" not in caplog.text:  # ended by the watch, or the run hangs
            pass

    async def main() -> None:
        async with sup.open_node() as node:
            specs = [sup.child(Echo), sup.child(computing, label="culprit", restart="temporary")]
            pid = await node.start(sup.Supervisor, sup.SupervisorFlags(), specs)
            children = await pids(pid)
            assert await sup.call(children["Echo"], 1, timeout=math.inf) == 1
            sup.send(children["computing"], "go")
            await sup.wait_down(children["computing"])
            assert await sup.call(children["Echo"], 2, timeout=math.inf) == 2
            assert repr(children["computing"]) in caplog.text

    trio.run(main, clock=virtual_clock())
