"""A worker in threads of this process."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Mapping

import structlog
import trio

from paddock.engine.worker.executor import Executor
from paddock.engine.worker.protocol import FromWorker, Stop, ToWorker
from paddock.errors import InvalidConfiguration, WorkerDied

__all__ = ["ThreadTransport"]

_log = structlog.get_logger("paddock.port")


class ThreadTransport:
    """A worker in threads; made, and documented, by :mod:`paddock.engine.worker.transport`.

    The decode thread holds the GIL while it samples, so this trades the trio thread's latency for a simpler
    process; and a fault in llama.cpp ends the whole process.
    """

    def __init__(self, environment: Mapping[str, str], arena_fd: int | None = None) -> None:
        _check_environment(environment)
        self._token = trio.lowlevel.current_trio_token()
        self._received: deque[FromWorker] = deque()
        self._arrival = trio.lowlevel.ParkingLot()
        self._ended = trio.Event()
        self._executor = Executor(self._emit, self._stopped, arena_fd)
        self._executor.start()

    @property
    def os_pid(self) -> int | None:
        return None

    def send(self, message: ToWorker) -> None:
        if not self._ended.is_set():
            self._executor.handle(message)

    async def receive(self) -> FromWorker:
        while not self._received:
            if self._ended.is_set():
                await trio.lowlevel.checkpoint()
                raise WorkerDied("its thread ended")
            await self._arrival.park()
        return self._received.popleft()

    def kill(self) -> None:
        self.send(Stop())

    async def end(self, patience: float) -> None:
        """Stop and ``patience`` seconds; a thread that is still busy then is left to end by itself."""
        self.send(Stop())
        with trio.move_on_after(patience) as waiting:
            await self._ended.wait()
        if waiting.cancelled_caught:
            _log.error("decode thread does not stop; it is abandoned")

    # On the executor's threads:

    def _emit(self, message: FromWorker) -> None:
        try:
            self._token.run_sync_soon(self._deliver, message)
        except trio.RunFinishedError:
            pass  # abandoned by a run that is over

    def _stopped(self) -> None:
        try:
            self._token.run_sync_soon(self._deliver_end)
        except trio.RunFinishedError:
            pass

    # On the trio thread:

    def _deliver(self, message: FromWorker) -> None:
        self._received.append(message)
        self._arrival.unpark()

    def _deliver_end(self) -> None:
        self._ended.set()
        self._arrival.unpark_all()


def _check_environment(environment: Mapping[str, str]) -> None:
    """The library reads its environment once, when it is loaded."""
    for name, value in environment.items():
        if os.environ.get(name) == value:
            continue
        if "llama_cpp" in sys.modules:
            raise InvalidConfiguration(
                "isolation",
                f"'thread' needs {name}={value} in the environment before llama.cpp is loaded into this process; "
                "set it there or use isolation='process'",
            )
        os.environ[name] = value
