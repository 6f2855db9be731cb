"""What has ended is freed at once, not when the collector comes by: no circle of references is left behind.

A server that crashed is the exception: the traceback of its crash, which is its exit reason, holds its loop.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio
from actors import Broken, Echo

import supervisors as sup


async def crash_a_process(node: sup.Node) -> None:
    async def crashing() -> None:
        raise Broken("process")

    await sup.wait_down(node.spawn(crashing))


async def cancel_a_process(node: sup.Node) -> None:
    pid = node.spawn(trio.sleep_forever)
    await trio.testing.wait_all_tasks_blocked()
    sup.exit(pid, sup.Killed())
    await sup.wait_down(pid)


async def call_and_stop(node: sup.Node) -> None:
    pid = await node.start(Echo)
    assert await sup.call(pid, 1) == 1
    assert await sup.send_request(pid, 2).wait() == 2
    await sup.stop(pid)


class Refusing(sup.GenServer):
    async def handle_call(self, request: Any, from_: sup.From) -> Any:
        sup.reply_error(from_, NotImplementedError())
        return sup.NO_REPLY


async def fail_calls(node: sup.Node) -> None:
    async def ask() -> None:
        with pytest.raises(NotImplementedError):
            await sup.call(refusing, "x")
        with pytest.raises(AttributeError):
            await sup.replace_state(refusing, lambda state: state.missing)

    refusing = await node.start(Refusing)
    await sup.wait_down(node.spawn(ask))
    await sup.stop(refusing)


@pytest.fixture
def no_collection(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.CRITICAL + 1, "supervisors")  # its records would keep everything
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("what", [crash_a_process, cancel_a_process, call_and_stop, fail_calls])
async def test_nothing_is_left_for_the_garbage_collector(
    node: sup.Node, what: Callable[[sup.Node], Awaitable[Any]]
) -> None:
    await what(node)  # whatever happens once
    await trio.lowlevel.checkpoint()
    gc.collect()
    for _ in range(3):
        await what(node)
        await trio.lowlevel.checkpoint()
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    left = [thing for thing in gc.garbage if type(thing).__module__.partition(".")[0] in ("supervisors", "actors")]
    assert left == []
