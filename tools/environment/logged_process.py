"""Run one long command: its output goes to the log, a line every few seconds says that it lives."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from environment.failure import SetupFailed

HEARTBEAT_SECONDS = 5.0
GRACE_SECONDS = 5.0
TAIL_LINES = 25

NINJA_STEP = re.compile(r"^\s*\[(\d+)/(\d+)\] (.+)")
# What a step makes: from ninja's own words, or from the compiler's command line where ninja shows that instead.
NINJA_TARGET = re.compile(r"^(?:Building|Linking) .* (\S+)$| -c (\S+)| -o (\S+)")
PIP_STEP = re.compile(r"^ *(Collecting|Downloading|Building|Installing|Preparing|Getting|Using cached)\b")
MAKE_STEP = re.compile(r"\[ *(\d+)%\] (?:Building|Linking) .* (\S+)$")


def say(line: str) -> None:
    """Print a line at once; also where standard output is a pipe."""
    print(line, flush=True)


def clock(seconds: float) -> str:
    """75.2 → ``1:15``."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"


def read_tail(log: Path, size: int = 65_536) -> str:
    """The last ``size`` bytes of the log as text; empty when there is none."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - size))
            return stream.read().decode("utf-8", "replace")
    except OSError:
        return ""


def current_step(tail: str) -> str:
    """What a build or an installation is at, by its log: ``[41/203] ops.cpp``, or pip's words."""
    for line in reversed(tail.splitlines()):
        if step := NINJA_STEP.search(line):
            return f"[{step[1]}/{step[2]}] {ninja_target(step[3])}".rstrip()
        if step := MAKE_STEP.search(line):
            return f"[{step[1]}%] {source_name(step[2])}"
        if PIP_STEP.match(line):
            return line.strip().split(" (")[0].split(": ")[0][:70]
    return "starting"


def ninja_target(command: str) -> str:
    found = NINJA_TARGET.search(command)
    return source_name(next(filter(None, found.groups()))) if found else ""


def source_name(target: str) -> str:
    """``vendor/…/ops.cpp.o`` → ``ops.cpp``."""
    return target.rsplit("/", 1)[-1].removesuffix(".o")


def describe_failure(activity: str, status: int, elapsed: float, tail: str, log: Path) -> SetupFailed:
    """The error for a command that ended with ``status``: names a full disk, has the log's tail."""
    if "No space left on device" in tail or "Errno 28" in tail:
        line = f"{activity}: no space left on the disk (log: {log})"
    else:
        cause = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        line = f"{activity}: {cause} after {clock(elapsed)} (log: {log})"
    return SetupFailed(line, "\n".join(tail.splitlines()[-TAIL_LINES:]))


def run_logged(
    command: Sequence[str | os.PathLike[str]],
    *,
    activity: str,
    log: Path,
    env: Mapping[str, str] | None = None,
    heartbeat: float = HEARTBEAT_SECONDS,
    say: Callable[[str], None] = say,
) -> None:
    """Run ``command`` to its end, output appended to ``log``.

    Raises:
        SetupFailed: it could not be started or ended with a status other than 0.

    Whatever else ends this call (Ctrl-C, SIGTERM) ends the command and all its children first.
    """
    started = time.monotonic()
    with log.open("ab") as sink:
        sink.write(f"\n$ {' '.join(map(str, command))}\n".encode())
        sink.flush()
        begin = sink.tell()
        try:
            # A session of its own: compilers started by make started by pip are then ended in one go.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
                close_fds=False,  # the locks that are held go along, see locking.exclusive
            )
        except OSError as error:
            raise SetupFailed(f"{activity}: cannot start {command[0]}: {error.strerror}") from error
    try:
        while True:
            try:
                status = process.wait(timeout=heartbeat)
                break
            except subprocess.TimeoutExpired:
                say(f"  {clock(time.monotonic() - started)}  {activity}: {current_step(read_tail(log))}")
    except BaseException:
        end_group(process)
        raise
    if status != 0:
        tail = read_tail(log, min(65_536, log.stat().st_size - begin))
        raise describe_failure(activity, status, time.monotonic() - started, tail, log)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children: politely, then for good."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, sent)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=GRACE_SECONDS)
            # The leader is gone; children that ignored SIGTERM may not be.
            if sent is signal.SIGTERM:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
            return
    sys.stderr.write(f"process {process.pid} does not end\n")
