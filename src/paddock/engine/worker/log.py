"""llama.cpp's log lines, as a worker process sends them, on structlog's logger ``paddock.llama``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from paddock.engine.worker.protocol import Log
from paddock.telemetry.loggers import get_logger

__all__ = ["BURST", "LINES_PER_SECOND", "WorkerLog"]

BURST: Final = 400
"""Lines at once; the loading of a large model writes a few hundred."""

LINES_PER_SECOND: Final = 20.0

_METHODS: Final = {"debug", "info", "warning", "error"}


class WorkerLog:
    """Passes lines on at a bounded rate (a token bucket), and says how many it has dropped as soon as it
    may."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._log = get_logger("paddock.llama")
        self._clock = clock
        self._room = float(BURST)
        self._at = clock()
        self._dropped = 0

    def write(self, line: Log) -> None:
        """Logs one line, or counts it as dropped."""
        now = self._clock()
        self._room = min(float(BURST), self._room + (now - self._at) * LINES_PER_SECOND)
        self._at = now
        if self._room < 1.0:
            self._dropped += 1
            return
        self._room -= 1.0
        if self._dropped:
            self._log.warning("log lines dropped", lines=self._dropped)
            self._dropped = 0
        method = line.level if line.level in _METHODS else "info"
        getattr(self._log, method)(line.text)
