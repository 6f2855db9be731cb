"""A worker in a process of its own, behind a socket pair.

The worker's standard output and error go to a pipe that is read here: ggml writes its last words there before it
aborts, and they become part of :class:`~paddock.errors.WorkerDied`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

import structlog
import trio

from paddock.engine.worker.framing import FrameParser, decode_from_worker, encode_frame
from paddock.engine.worker.process_environment import SPAWNER_VARIABLE
from paddock.engine.worker.protocol import FromWorker, Stop, ToWorker
from paddock.errors import ProtocolError, WorkerBusy, WorkerDied

__all__ = ["MAX_UNSENT_BYTES", "WORKER_COMMAND", "LastWords", "ProcessTransport", "describe_exit"]

MAX_UNSENT_BYTES: Final = 64 << 20
"""What may wait for a worker that does not read; beyond it ``send`` raises WorkerBusy."""

WORKER_COMMAND: Final = (sys.executable, "-P", "-m", "paddock.engine.worker")
"""``-P`` keeps the working directory off the child's import path, where any ``random.py`` would shadow a
module."""

_RECEIVE_BYTES: Final = 1 << 18
_EXIT_SECONDS: Final = 1.0
_REAP_SECONDS: Final = 5.0
_OUTPUT_SECONDS: Final = 0.5
_LAST_LINES: Final = 40
_LINE_CHARACTERS: Final = 500

_log = structlog.get_logger("paddock.port")

_parent_ends: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def _close_parent_ends() -> None:
    for connection in _parent_ends:
        connection.close()


# A process that user code forks off (multiprocessing's "fork") would hold the parent's ends of all sockets
# and, when it outlives the parent, keep the workers waiting for an end of stream.
os.register_at_fork(after_in_child=_close_parent_ends)


class ProcessTransport:
    """A worker process; made, and documented, by :mod:`paddock.engine.worker.transport`."""

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
        cls,
        nursery: trio.Nursery,
        environment: Mapping[str, str],
        command: Sequence[str],
        arena_fd: int | None = None,
    ) -> ProcessTransport:
        """Spawns from a thread, since fork and exec take milliseconds in a large process. Not cancellable."""
        ours, theirs = socket.socketpair()
        inherited = [theirs.fileno()]
        try:
            if arena_fd is not None:
                # The arena may be closed, and its number be another file's, while the thread spawns.
                inherited.append(os.dup(arena_fd))
            ours.setblocking(False)
            _parent_ends.add(ours)
            process = await trio.lowlevel.open_process(
                [*command, *map(str, inherited)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=inherited,
                process_group=0,  # out of reach of the terminal's Ctrl-C from the first instruction on
                env=worker_environment(environment),
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            for number in inherited[1:]:
                os.close(number)
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
    inherited[SPAWNER_VARIABLE] = str(os.getpid())
    # The worker must import the same paddock as this process, wherever that came from.
    inherited["PYTHONPATH"] = os.pathsep.join(path or os.curdir for path in sys.path)
    return inherited | dict(environment)
