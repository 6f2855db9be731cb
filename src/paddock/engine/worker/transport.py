"""How a port reaches its worker: a child process behind a socket pair, or threads of this process.

:func:`open_transport` is the way in. Both transports take the same messages, answer with the same ones, and
end in the same way: :meth:`receive` raises WorkerDied when the worker is gone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, Literal, Protocol

import trio

from paddock.engine.worker.process_transport import WORKER_COMMAND, ProcessTransport
from paddock.engine.worker.protocol import FromWorker, ToWorker
from paddock.engine.worker.thread_transport import ThreadTransport

__all__ = ["STOP_SECONDS", "Isolation", "Transport", "open_transport"]

Isolation = Literal["process", "thread"]

STOP_SECONDS: Final = 2.0
"""How long a worker may take from Stop to its end before it is killed."""


class Transport(Protocol):
    """A worker, as its port sees it."""

    @property
    def os_pid(self) -> int | None:
        """The worker's process id; None when it has no process of its own."""

    def send(self, message: ToWorker) -> None:
        """Queues one message; never waits. WorkerBusy when too much is queued already, ProtocolError for one
        that cannot be encoded. To a worker that is gone it does nothing: ``receive`` tells of the end."""

    async def receive(self) -> FromWorker:
        """The next message, in the order in which the worker sent them. WorkerDied when it is gone. One task
        at a time. Checkpoints unless a message has arrived already; cancelling it loses nothing."""
        raise NotImplementedError

    def kill(self) -> None:
        """Ends the worker without asking it (a thread can only be asked)."""


@asynccontextmanager
async def open_transport(
    isolation: Isolation,
    *,
    environment: Mapping[str, str] | None = None,
    command: Sequence[str] = WORKER_COMMAND,
    stop_seconds: float = STOP_SECONDS,
    arena_fd: int | None = None,
) -> AsyncIterator[Transport]:
    """Starts a worker that has nothing loaded, and ends it when the block ends, however it ends: Stop, at
    most ``stop_seconds`` of patience, SIGKILL. The end is shielded from cancellation and takes bounded time.

    ``environment`` is added to the worker's environment; with threads it must be in force already or the
    library not yet loaded (InvalidConfiguration). ``command`` starts a process worker; the socket's number is
    appended to it. ``arena_fd`` is the file of the arena that it saves blocks in, which it gets a duplicate of. OSError
    when no process can be made.
    """
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        transport: ProcessTransport | ThreadTransport | None = None
        try:
            if isolation == "process":
                transport = await ProcessTransport.start(nursery, environment or {}, command, arena_fd)
            else:
                transport = ThreadTransport(environment or {}, arena_fd)
            yield transport
        except Exception as error:
            failure = error  # raised below, outside of the nursery, which would wrap it into a group
        finally:
            if transport is not None:
                with trio.CancelScope(shield=True):
                    await transport.end(stop_seconds)
    if failure is not None:
        raise failure
