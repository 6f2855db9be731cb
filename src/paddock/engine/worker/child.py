"""The worker process: ``python -m paddock.engine.worker FD [ARENA]``, started by a port and by nobody else.

The main thread reads frames from the socket ``FD`` and hands them to an
:class:`~paddock.engine.worker.executor.Executor`; the file ``ARENA`` holds saved blocks. Nobody else holds the other
end of that socket, so the end of the stream means that the parent is gone, however it went: the process then ends at
once, in the middle of whatever llama.cpp does. (Linux's PR_SET_PDEATHSIG is not used: it fires when the *thread* that
spawned the worker ends, and trio spawns from threads that come and go.)

Exit codes: 0 after Stop or the parent's end, 1 after a defect, 3 when the parent sent something that is no
message.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, MutableMapping
from typing import Any, Final, NoReturn

import structlog

from paddock.engine.worker.executor import Executor
from paddock.engine.worker.framing import FrameParser, decode_to_worker, encode_frame, fault_of
from paddock.engine.worker.process_environment import SPAWNER_VARIABLE
from paddock.engine.worker.protocol import (
    FromWorker,
    Loaded,
    LoadFailed,
    Log,
    LogitsSampled,
    Stepped,
    Tokenized,
)
from paddock.errors import ProtocolError
from paddock.telemetry.outline import outline

__all__ = ["EXIT_PROTOCOL", "main"]

EXIT_PROTOCOL: Final = 3

_RECEIVE_BYTES: Final = 1 << 18
_PARENT_CHECK_MICROSECONDS: Final = 500_000


def main() -> NoReturn:
    """Runs until Stop, the parent's end or a fault; never returns."""
    numbers = sys.argv[1:]
    if not 1 <= len(numbers) <= 2 or not all(number.isdecimal() for number in numbers):
        sys.exit("a worker is started by its model's port, with the numbers of its socket and of its arena")
    prepare_signals()
    connection = socket.socket(fileno=int(numbers[0]))
    connection.set_inheritable(False)  # whatever llama.cpp's backends spawn must not hold the socket
    # The receiving thread waits for the GIL while the decode thread samples; the default of 5 ms is long for
    # an abort.
    sys.setswitchinterval(0.001)
    emit = FrameWriter(connection).emit
    forward_logs(emit)
    arena_fd = int(numbers[1]) if len(numbers) == 2 else None
    executor = Executor(emit, _stopped, arena_fd)
    if arena_fd is not None:
        os.close(arena_fd)  # it was duplicated, not to be inherited
    executor.start()
    _receive(connection, executor)


def prepare_signals() -> None:
    """Default dispositions, nothing blocked, and SIGINT and SIGTERM ignored.

    A terminal's Ctrl-C and an init system's SIGTERM reach every process of a service at once; the worker has
    to serve on while the parent stops in its own order, and ends when the parent says so or ends itself.
    """
    for number in signal.valid_signals():
        if number in (signal.SIGKILL, signal.SIGSTOP):
            continue
        ignored = number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)
        try:
            signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)
        except (OSError, ValueError):
            continue  # reserved by the C library
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


class FrameWriter:
    """Writes frames to a blocking socket from any thread; a parent that is gone ends the process."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def emit(self, message: FromWorker) -> None:
        """Sends one message; one that cannot be encoded is replaced by an answer that says so."""
        try:
            frame = encode_frame(message)
        except ProtocolError as error:
            frame = encode_frame(_unencodable(message, error))
        try:
            with self._lock:
                self._connection.sendall(frame)
        except OSError:
            os._exit(0)
        if isinstance(message, Loaded):
            # What loading made lives as long as the process: keep it out of every later collection.
            gc.collect()
            gc.freeze()


def _unencodable(message: FromWorker, error: ProtocolError) -> FromWorker:
    fault = fault_of(error)
    match message:
        case Stepped():
            return Stepped(message.request_id, [], message.seconds, fault, message.positions)
        case LogitsSampled():
            return LogitsSampled(message.request_id, None, fault)
        case Tokenized():
            return Tokenized(message.request_id, [], fault)
        case Loaded():
            return LoadFailed(fault)
        case _:
            return Log("error", str(error))


def forward_logs(emit: Callable[[FromWorker], None]) -> None:
    """Sends what is logged through structlog to the parent, from level info on."""

    def forward(_: object, method: str, event: MutableMapping[str, Any]) -> NoReturn:
        emit(Log(method, str(event.get("event", ""))))
        raise structlog.DropEvent

    structlog.configure(
        processors=[forward],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )


def _exists(os_pid: int) -> bool:
    try:
        os.kill(os_pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's, but there
    return True


def _receive(connection: socket.socket, executor: Executor) -> NoReturn:
    # SO_RCVTIMEO bounds recv alone; a socket timeout of Python's would bound the writers' sendall as well.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, _PARENT_CHECK_MICROSECONDS))
    parent = os.getppid()
    spawner = int(os.environ.get(SPAWNER_VARIABLE, parent))
    parser = FrameParser()
    while True:
        try:
            data = connection.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            # A process forked from the parent by foreign code may hold the parent's end of the socket and
            # outlive it; then no end of stream comes, but this process has a new parent. It may have had it
            # already when it read its parent's number, if the parent died while the imports ran.
            if os.getppid() != parent or not _exists(spawner):
                os._exit(0)
            continue
        except OSError:
            os._exit(0)
        if not data:
            os._exit(0)
        try:
            for body in parser.feed(data):
                executor.handle(decode_to_worker(body))
        except ProtocolError as error:
            print(f"ProtocolError: {error}", file=sys.stderr, flush=True)
            os._exit(EXIT_PROTOCOL)


def _stopped() -> NoReturn:
    """The decode thread's last deed: what it held is freed, so nothing is left that an orderly exit would
    do."""
    defect = sys.exception()
    if defect is not None:
        shown = outline(defect)  # these are the worker's last words, which errors and logs repeat
        print(shown, *shown.frames, sep="\n  ", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0 if defect is None else 1)
