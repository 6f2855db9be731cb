"""For tests of what is built on this package."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ._signals import wait_down

__all__ = ["settle", "virtual_clock", "wait_down"]


def virtual_clock() -> MockClock:
    """A clock for ``trio.run(..., clock=...)`` that jumps to the next deadline whenever every task waits."""
    return MockClock(autojump_threshold=0)


async def settle() -> None:
    """Wait until every other task waits for something: all messages sent have been handled."""
    await trio.lowlevel.checkpoint()
    await wait_all_tasks_blocked()
