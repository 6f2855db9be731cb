"""A trio loop that a synchronous test turns by hand, so that a Hypothesis state machine can talk to it step by step."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import outcome
import trio

from supervisors.testing import virtual_clock


class GuestLoop:
    """Runs in virtual time; it stands still except inside `do` and `close`."""

    def __init__(self) -> None:
        self._ticks: deque[Callable[[], object]] = deque()
        self._work: deque[tuple[Callable[..., Awaitable[Any]], tuple[Any, ...]]] = deque()
        self._results: list[outcome.Outcome[Any]] = []
        self._ended: list[outcome.Outcome[Any]] = []
        self._closing = False
        trio.lowlevel.start_guest_run(
            self._main,
            run_sync_soon_threadsafe=self._ticks.append,
            done_callback=self._ended.append,
            clock=virtual_clock(),
        )

    async def _main(self) -> None:
        while not self._closing:
            if self._work:
                function, args = self._work.popleft()
                self._results.append(await outcome.acapture(function, *args))
            else:
                await trio.lowlevel.checkpoint()

    def _turn(self, until: list[outcome.Outcome[Any]]) -> Any:
        while not until and not self._ended:
            # with a clock that jumps the loop never waits for anything in a thread: there is always a next tick
            self._ticks.popleft()()
        return (until or self._ended).pop().unwrap()

    def do(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Run one async function in the loop's main task, to its end; its value, or what it raised."""
        self._work.append((function, args))
        return self._turn(self._results)

    def close(self) -> None:
        """End the run."""
        self._closing = True
        self._turn(self._ended)
