"""Finding out that a worker hangs: it answers no ping, or its decode thread does not come back from a step.

A ping is answered by the worker's main thread, which never waits for a decode, so a worker that is silent is stopped,
deadlocked or starved. How long a step may take follows from how long steps took.
"""

from __future__ import annotations

from typing import Any, Final

import attrs
import trio

import supervisors as sup
from paddock.engine.worker.messages import PingWorker, WorkerSilent
from paddock.errors import PaddockError

__all__ = ["Pace", "Patience", "heartbeat"]

_SLACK: Final = 20.0
"""How much longer than the slowest row so far each row of a step may take: contexts grow, and machines get busy."""


@attrs.frozen
class Patience:
    """Seconds. ``silence``: for how long a worker may answer no ping; ``step`` and ``step_max``: the bounds of the time
    that a step may take."""

    silence: float
    step: float
    step_max: float

    @property
    def interval(self) -> float:
        """Seconds between two pings."""
        return min(1.0, self.silence / 4)


class Pace:
    """How fast a worker has been, and so how long its next step may take."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._slowest_row: float | None = None

    def measured(self, rows: int, seconds: float) -> None:
        """A step of so many rows has taken so long."""
        if rows > 0:
            self._slowest_row = max(self._slowest_row or 0.0, seconds / rows)

    def deadline(self, rows: int) -> float:
        """Seconds that a step of so many rows may take: ``step_max`` before anything was measured."""
        if self._slowest_row is None:
            return self._patience.step_max
        expected = _SLACK * max(rows, 1) * self._slowest_row
        return min(max(expected, self._patience.step), self._patience.step_max)


async def heartbeat(port: sup.Pid[Any], patience: Patience) -> None:
    """Body of a process linked to its port: pings the worker until it is silent, which it casts to the port.

    Two pings have to go unanswered: when this whole process was stopped for a while, the first answer is only late.
    """
    silent = 0
    while silent < 2:
        if not silent:
            await trio.sleep(patience.interval)
        try:
            await sup.call(port, PingWorker(), timeout=patience.silence / 2)
        except sup.CallTimeout:
            silent += 1
        except (PaddockError, sup.NoProc, sup.ServerExited):
            return
        else:
            silent = 0
    sup.cast(port, WorkerSilent(patience.silence))
