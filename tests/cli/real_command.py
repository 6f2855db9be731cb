"""The real command line as a subprocess: to its end, interrupted, or at a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psutil

Argument = str | bytes | Path

SECONDS = 60.0
"""How long anything may take on a busy machine before the test fails."""


def paddock_command(*arguments: Argument) -> list[str | bytes]:
    return [sys.executable, "-m", "paddock", *(arg if isinstance(arg, bytes) else str(arg) for arg in arguments)]


def run_paddock(*arguments: Argument, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """The command to its end, without a terminal."""
    given = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    return subprocess.run(paddock_command(*arguments), capture_output=True, timeout=SECONDS, check=False, **given)


def family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The processes that it has started, and theirs."""
    return psutil.Process(process.pid).children(recursive=True)


def assert_gone(processes: Sequence[psutil.Process]) -> None:
    """None of them is left, or only as a zombie that its new parent has not yet seen."""
    _, alive = psutil.wait_procs(processes, timeout=2.0)
    assert [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE] == []


@contextmanager
def started(*arguments: Argument) -> Iterator[subprocess.Popen[bytes]]:
    """The running command, with pipes; killed at the end if it still runs."""
    process = subprocess.Popen(
        paddock_command(*arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def read_until(stream: IO[bytes] | None, pattern: bytes) -> bytes:
    """What the stream gives until the pattern appears."""
    assert stream is not None
    return _read_until(stream.fileno(), pattern)


def _read_until(descriptor: int, pattern: bytes, already: bytes = b"") -> bytes:
    data, deadline = already, time.monotonic() + SECONDS
    while not re.search(pattern, data):
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        try:
            chunk = os.read(descriptor, 65_536) if ready else b""
        except OSError:  # the terminal's other side is closed
            chunk = b""
        if not chunk:
            raise AssertionError(f"{pattern!r} did not appear in {data[-2000:]!r}")
        data += chunk
    return data


class Terminal:
    """The command at a terminal of its own, as a person uses it."""

    def __init__(self, *arguments: Argument, columns: int = 80, lines: int = 24) -> None:
        self.pid, self._descriptor = pty.fork()
        if self.pid == 0:
            environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "1", "COLUMNS": str(columns), "LINES": str(lines)}
            os.execve(sys.executable, paddock_command(*arguments), environment)
        self.shown = b""

    def wait_for(self, pattern: bytes) -> bytes:
        """Waits until the pattern is shown, and forgets what has been shown up to and with it."""
        self.shown = _read_until(self._descriptor, pattern, self.shown)
        found = re.search(pattern, self.shown)
        assert found is not None
        before, self.shown = self.shown[: found.end()], self.shown[found.end() :]
        return before

    def type(self, keys: bytes) -> None:
        os.write(self._descriptor, keys)

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.pid).children(recursive=True)

    def end(self) -> int:
        """Waits for the command's end; its exit code, or minus the signal that ended it."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self._descriptor], [], [], 0.1)
            try:
                chunk = os.read(self._descriptor, 65_536) if ready else b""
            except OSError:
                break
            self.shown += chunk
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self) -> None:
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass  # it has ended, as it should
        os.close(self._descriptor)


@contextmanager
def at_terminal(*arguments: Argument, columns: int = 80, lines: int = 24) -> Iterator[Terminal]:
    terminal = Terminal(*arguments, columns=columns, lines=lines)
    try:
        yield terminal
    finally:
        terminal.close()
