"""How a port reaches its worker: a child process behind a socket pair, or two threads of this process.

:func:`open_transport` is the way in. Both transports take the same messages, answer with the same ones, and
end in the same way: :meth:`receive` raises WorkerDied when the worker is gone.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import weakref
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, Literal, Protocol

import trio

from paddock.engine.executor import Executor
from paddock.engine.framing import FrameParser, decode_from_worker, encode_frame
from paddock.engine.protocol import FromWorker, Stop, ToWorker
from paddock.errors import InvalidConfiguration, ProtocolError, WorkerBusy, WorkerDied
from paddock.telemetry.loggers import get_logger

__all__ = [
    "MAX_UNSENT_BYTES",
    "WORKER_COMMAND",
    "Isolation",
    "ProcessTransport",
    "ThreadTransport",
    "Transport",
    "open_transport",
]

Isolation = Literal["process", "thread"]

MAX_UNSENT_BYTES: Final = 64 << 20
"""What may wait for a worker that does not read; beyond it ``send`` raises WorkerBusy."""

STOP_SECONDS: Final = 2.0
"""How long a worker may take from Stop to its end before it is killed."""

WORKER_COMMAND: Final = (sys.executable, "-P", "-m", "paddock.engine.worker")
"""``-P`` keeps the working directory off the child's import path, where any ``random.py`` would shadow a
module."""

_RECEIVE_BYTES: Final = 1 << 18
_EXIT_SECONDS: Final = 1.0
_REAP_SECONDS: Final = 5.0
_OUTPUT_SECONDS: Final = 0.5
_LAST_LINES: Final = 40
_LINE_CHARACTERS: Final = 500

_log = get_logger("paddock.port")


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
) -> AsyncIterator[Transport]:
    """Starts a worker that has nothing loaded, and ends it when the block ends, however it ends: Stop, at
    most ``stop_seconds`` of patience, SIGKILL. The end is shielded from cancellation and takes bounded time.

    ``environment`` is added to the worker's environment; with threads it must be in force already or the
    library not yet loaded (InvalidConfiguration). ``command`` starts a process worker; the socket's number is
    appended to it. OSError when no process can be made.
    """
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        transport: ProcessTransport | ThreadTransport | None = None
        try:
            if isolation == "process":
                transport = await ProcessTransport.start(nursery, environment or {}, command)
            else:
                transport = ThreadTransport(environment or {})
            yield transport
        except Exception as error:
            failure = error  # raised below, outside of the nursery, which would wrap it into a group
        finally:
            if transport is not None:
                with trio.CancelScope(shield=True):
                    await transport.end(stop_seconds)
    if failure is not None:
        raise failure


# --- process ------------------------------------------------------------------------------------------------

_parent_ends: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def _close_parent_ends() -> None:
    for connection in _parent_ends:
        connection.close()


# A process that user code forks off (multiprocessing's "fork") would hold the parent's ends of all sockets
# and, when it outlives the parent, keep the workers waiting for an end of stream.
os.register_at_fork(after_in_child=_close_parent_ends)


class ProcessTransport:
    """A worker process; made by :func:`open_transport`."""

    def __init__(self, process: trio.Process, connection: socket.socket) -> None:
        self._process = process
        self._connection = connection
        self._parser = FrameParser()
        self._received: deque[FromWorker] = deque()
        self._unsent: deque[memoryview] = deque()
        self._unsent_bytes = 0
        self._writer_wakes = trio.Event()
        self._output = LastWords()
        self._output_ended = trio.Event()
        self._broken: str | None = None
        self._gone = False
        # Shielded: a worker that is being stopped because of a cancellation still has to be written to and
        # listened to. ``end`` cancels it.
        self._background = trio.CancelScope(shield=True)

    @classmethod
    async def start(
        cls, nursery: trio.Nursery, environment: Mapping[str, str], command: Sequence[str]
    ) -> ProcessTransport:
        """Spawns from a thread, since fork and exec take milliseconds in a large process. Not cancellable."""
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            _parent_ends.add(ours)
            process = await trio.lowlevel.open_process(
                [*command, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                process_group=0,  # out of reach of the terminal's Ctrl-C from the first instruction on
                env=worker_environment(environment),
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        transport = cls(process, ours)
        nursery.start_soon(transport._attend_streams)
        return transport

    async def _attend_streams(self) -> None:
        with self._background:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read_output)
                nursery.start_soon(self._write_unsent)

    @property
    def os_pid(self) -> int | None:
        return self._process.pid

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()

    # --- sending ------------------------------------------------------------------------------------------

    def send(self, message: ToWorker) -> None:
        frame = encode_frame(message)
        sent = 0
        if self._gone:
            return
        if not self._unsent:
            try:
                sent = self._connection.send(frame)
            except BlockingIOError:
                pass
            except OSError:
                self._gone = True
                return
            if sent == len(frame):
                return
        elif self._unsent_bytes + len(frame) > MAX_UNSENT_BYTES:
            raise WorkerBusy("unsent bytes", MAX_UNSENT_BYTES)
        self._unsent.append(memoryview(frame)[sent:])
        self._unsent_bytes += len(frame) - sent
        self._writer_wakes.set()

    async def _write_unsent(self) -> None:
        while True:
            await self._writer_wakes.wait()
            while self._unsent:
                try:
                    await trio.lowlevel.wait_writable(self._connection)
                    sent = self._connection.send(self._unsent[0])
                except BlockingIOError:
                    continue
                except OSError:
                    self._gone = True
                    self._unsent.clear()
                    return
                self._unsent_bytes -= sent
                if sent == len(self._unsent[0]):
                    self._unsent.popleft()
                else:
                    self._unsent[0] = self._unsent[0][sent:]
            self._writer_wakes = trio.Event()

    # --- receiving ----------------------------------------------------------------------------------------

    async def receive(self) -> FromWorker:
        while not self._received:
            await trio.lowlevel.wait_readable(self._connection)
            try:
                data = self._connection.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                raise await self._death()
            try:
                for body in self._parser.feed(data):
                    self._received.append(decode_from_worker(body))
            except ProtocolError as error:
                # What came before the garbage has been received in good order and is not worth saving: a
                # worker that writes garbage has overwritten its own memory.
                self._broken = str(error)
                self.kill()
                raise await self._death() from error
        return self._received.popleft()

    async def _death(self) -> WorkerDied:
        """What became of a worker whose end of the socket is closed."""
        with trio.move_on_after(_EXIT_SECONDS):
            await self._process.wait()
        self.kill()
        with trio.move_on_after(_REAP_SECONDS):
            await self._process.wait()
        with trio.move_on_after(_OUTPUT_SECONDS):
            await self._output_ended.wait()
        how = self._broken or describe_exit(self._process.returncode)
        return WorkerDied(how, self._output.text())

    async def _read_output(self) -> None:
        assert self._process.stdout is not None
        try:
            async for chunk in self._process.stdout:
                self._output.feed(chunk)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self._output_ended.set()

    # --- the end ------------------------------------------------------------------------------------------

    async def end(self, patience: float) -> None:
        """Stop, ``patience`` seconds, SIGKILL; run under a shield."""
        try:
            if self._process.poll() is None and self._broken is None:
                await self._stop(patience)
            self.kill()
            with trio.move_on_after(_REAP_SECONDS) as reaping:
                await self._process.wait()
            if reaping.cancelled_caught:
                _log.error("worker cannot be killed", pid=self._process.pid)
            with trio.move_on_after(_OUTPUT_SECONDS):
                await self._output_ended.wait()
        finally:
            self._gone = True
            self._background.cancel()
            self._connection.close()
        assert self._process.stdout is not None
        await self._process.stdout.aclose()

    async def _stop(self, patience: float) -> None:
        try:
            self.send(Stop())
        except WorkerBusy:
            return
        with trio.move_on_after(patience):
            await self._until_exit()

    async def _until_exit(self) -> None:
        # It may be in the middle of a long answer: read on, or it would never come to its Stop.
        while True:
            await trio.lowlevel.wait_readable(self._connection)
            try:
                if not self._connection.recv(_RECEIVE_BYTES):
                    break
            except BlockingIOError:
                continue
            except OSError:
                break
        await self._process.wait()


class LastWords:
    """The last lines that a process wrote: bounded in their number and each in its length."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._partial = b""

    def feed(self, data: bytes | bytearray) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._partial = self._partial[: 4 * _LINE_CHARACTERS]
        for line in lines[-_LAST_LINES:]:
            self._keep(line)

    def _keep(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").strip()[:_LINE_CHARACTERS]
        if text:
            self._lines.append(text)

    def text(self) -> str:
        """The lines, oldest first; what has no line end yet is the last one."""
        self._keep(self._partial)
        self._partial = b""
        return "\n".join(self._lines)


def describe_exit(returncode: int | None) -> str:
    """ "signal SIGKILL", "exit code 3", or that it has not ended."""
    if returncode is None:
        return "it closed its socket and does not end"
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"signal {signal.Signals(-returncode).name}"
    except ValueError:
        return f"signal {-returncode}"


def worker_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with what a worker needs, and ``environment`` over it."""
    inherited = dict(os.environ)
    # ggml's own backtrace on an abort runs a debugger for most of a second and says nothing that helps here.
    inherited["GGML_NO_BACKTRACE"] = "1"
    # The worker must import the same paddock as this process, wherever that came from.
    inherited["PYTHONPATH"] = os.pathsep.join(path or os.curdir for path in sys.path)
    return inherited | dict(environment)


# --- thread -------------------------------------------------------------------------------------------------


class ThreadTransport:
    """A worker in two threads of this process; made by :func:`open_transport`.

    The decode thread holds the GIL while it samples, so this trades the trio thread's latency for a simpler
    process; and a fault in llama.cpp ends the whole process.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        _check_environment(environment)
        self._token = trio.lowlevel.current_trio_token()
        self._received: deque[FromWorker] = deque()
        self._arrival = trio.lowlevel.ParkingLot()
        self._ended = trio.Event()
        self._executor = Executor(self._emit, self._stopped)
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
