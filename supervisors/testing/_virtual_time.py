"""Time that does not pass but jumps: an hour of restarts and timeouts takes a test no time at all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def virtual_clock() -> MockClock:
    """A clock for ``trio.run(..., clock=...)`` that jumps to the next deadline whenever every task waits.

    It starts at 0. What waits for the outside world (a thread, a socket) does not hold it up: a deadline may then
    pass at once.
    """
    return MockClock(autojump_threshold=0)


def run_in_virtual_time(main: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """``trio.run(main, *args)`` on a `virtual_clock`. Returns and raises what ``main`` does."""
    return trio.run(main, *args, clock=virtual_clock())


async def settle() -> None:
    """Wait until every other task waits for something: all messages sent have been handled.

    A checkpoint. Virtual time stands still meanwhile.
    """
    await trio.lowlevel.checkpoint()
    await wait_all_tasks_blocked()


async def advance(seconds: float) -> None:
    """Let ``seconds`` of virtual time pass, and all that falls due in them happen, in its order; then `settle`.

    Works on any `MockClock`, also on one that does not jump by itself. A checkpoint; cancelled, time stays where it
    is by then. RuntimeError on the real clock.
    """
    clock = trio.lowlevel.current_clock()
    if not isinstance(clock, MockClock):
        raise RuntimeError("time can be advanced on a virtual clock only: use run_in_virtual_time or a MockClock")
    threshold = clock.autojump_threshold
    clock.autojump_threshold = 0
    try:
        await trio.sleep(seconds)
        await settle()
    finally:
        clock.autojump_threshold = threshold
