"""A lock between set-ups; the kernel gives it back when its holder and what the holder started have ended."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from environment.logged_process import HEARTBEAT_SECONDS, clock, say

POLL_SECONDS = 0.2


@contextlib.contextmanager
def exclusive(path: Path, what: str, *, say: Callable[[str], None] = say) -> Iterator[None]:
    """Hold the lock file ``path``; while another process holds it, wait and say so every few seconds.

    The file stays behind: removing it would let a waiter and a newcomer lock two different files. Commands run
    by ``run_logged`` inherit the lock: after a ``kill -9`` of the set-up, a pip that is still writing keeps the
    next set-up waiting until it is done.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.set_inheritable(descriptor, True)
        started = time.monotonic()
        next_line = 0.0
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
                    raise
            waited = time.monotonic() - started
            if waited >= next_line:
                say(f"  {clock(waited)}  waiting for another set-up: {what}")
                next_line = waited + HEARTBEAT_SECONDS
            time.sleep(POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)
