"""Virtual time, as users of the package get it."""

from __future__ import annotations

import pytest
import trio
from actors import Echo
from trio.testing import MockClock

import supervisors as sup
from supervisors.testing import advance, run_in_virtual_time, settle, virtual_clock, wait_down


def test_an_hour_passes_in_no_time_and_the_value_comes_back() -> None:
    async def main(seconds: float, factor: int) -> float:
        await trio.sleep(seconds)
        return trio.current_time() * factor

    assert run_in_virtual_time(main, 3600.0, 2) == 7200


def test_what_main_raises_is_raised() -> None:
    async def main() -> None:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        run_in_virtual_time(main)


async def test_settle_lets_all_messages_be_handled_and_no_time_pass(node: sup.Node) -> None:
    pid = await node.start(Echo)
    for _ in range(100):
        sup.cast(pid, "message")
    await settle()
    assert len(pid.mailbox) == 0
    assert trio.current_time() == 0


@pytest.mark.parametrize("clock", [virtual_clock(), MockClock()])
def test_advance_lets_what_falls_due_happen_in_its_order(clock: MockClock) -> None:
    log: list[float] = []

    async def tick(seconds: float) -> None:
        while True:
            await trio.sleep(seconds)
            log.append(trio.current_time())

    async def main() -> None:
        threshold = clock.autojump_threshold
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick, 2)
            nursery.start_soon(tick, 3.5)
            await settle()
            await advance(4)
            assert log == [2, 3.5, 4]
            assert trio.current_time() == 4
            await advance(0.5)
            assert trio.current_time() == 4.5
            assert clock.autojump_threshold == threshold
            nursery.cancel_scope.cancel()

    trio.run(main, clock=clock)


def test_the_real_clock_cannot_be_advanced() -> None:
    with pytest.raises(RuntimeError, match="virtual clock"):
        trio.run(advance, 1)


async def test_wait_down_tells_why(node: sup.Node) -> None:
    pid = await node.start(Echo)
    sup.cast(pid, "crash")
    assert isinstance(await wait_down(pid), sup.Crashed)
