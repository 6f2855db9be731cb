"""Names the process that keeps the loop from running: nothing preempts a task, so one can hold up all the others.

A thread looks from outside, some forty times a second, whether the loop is still in the same step of the same task.
A `trio.abc.Instrument` would have to be called twice for every step of every task, which costs about as much as a
step does and tells of a stall only once it is over, if ever. The thread costs the loop nothing, knows the stack while
the loop stands still, and reads the real clock only, so that a virtual one is not disturbed.
"""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType, SimpleNamespace
from typing import Any

import trio
from trio._core import _run as trio_run

from supervisors.processes.pid import AnyPid, current_process_var
from supervisors.processes.reports import logger

STALL_SECONDS = 0.1
"""How long a process may go without a checkpoint before it is named."""

LOOKS_PER_STALL = 4
"""How often the thread looks within the time that makes a stall: a stall is named at the latest when it has lasted
that long, and at the earliest a quarter of it before, as nobody saw when exactly it began."""


class StallWatch:
    """Watches the trio loop of the thread that makes it, from a daemon thread, until `close`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._interval = seconds / LOOKS_PER_STALL
        self._loop_thread = threading.get_ident()
        # a plain dict, in which trio keeps the task it is running; other threads may read it. It is no public
        # interface: a trio without it has nothing to watch
        self._running: Mapping[str, Any] = vars(getattr(trio_run, "GLOBAL_RUN_CONTEXT", SimpleNamespace()))
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisors stall watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; it has ended when this returns, at once."""
        self._closed.set()
        self._thread.join()

    def step(self) -> tuple[trio.lowlevel.Task, int] | None:
        """The step that the loop is in: a task, and how many it has done; None between two steps."""
        task: trio.lowlevel.Task | None = self._running.get("task")
        return None if task is None else (task, task._schedule_points)

    def frame_in(self, step: tuple[trio.lowlevel.Task, int]) -> FrameType | None:
        """Where the loop's thread is, if it is still in that step."""
        frame = sys._current_frames().get(self._loop_thread)
        return frame if self.step() == step else None

    def _watch(self) -> None:
        before: tuple[trio.lowlevel.Task, int] | None = None
        first_seen = now = 0.0
        named = False
        wait = self._interval
        while not self._closed.wait(wait):
            wait = self._interval
            step, now = self.step(), time.monotonic()
            if step is None or step != before:
                if named and before is not None:
                    log_end(before[0], now - first_seen)
                before, first_seen, named = step, now, False
            elif not named:  # pragma: no branch  (whether the thread looks once more before the end is chance)
                left = self.seconds - self._interval - (now - first_seen)
                if left > 0:
                    wait = min(left, wait)
                elif (frame := self.frame_in(step)) is not None:  # pragma: no branch  (it may just have ended)
                    log_stall(step[0], now - first_seen, frame)
                    named = True


def process_of(task: trio.lowlevel.Task) -> AnyPid | None:
    """The process that a task belongs to, or None."""
    pid: AnyPid | None = task.context.get(current_process_var)
    return pid


def name_of(task: trio.lowlevel.Task) -> str:
    """The process that a task belongs to, or the task itself."""
    pid = process_of(task)
    return f"task {task.name!r}" if pid is None else f"process {pid!r}"


def log_stall(task: trio.lowlevel.Task, seconds: float, frame: FrameType) -> None:
    """Name a task that is holding up the loop."""
    stack = traceback.extract_stack(frame)
    below = max((place for place, entry in enumerate(stack) if entry.name == "unrolled_run"), default=-1)
    logger.log(
        logging.WARNING,
        "%s holds up all others: no checkpoint for %.2f s, and still none, at\n%s",
        name_of(task),
        seconds,
        "".join(traceback.format_list(stack[below + 1 :])).rstrip(),
        extra={"stalled": process_of(task)},
    )


def log_end(task: trio.lowlevel.Task, seconds: float) -> None:
    """Say how long it was."""
    logger.log(
        logging.WARNING,
        "%s held up all others for about %.2f s; have it pass a checkpoint, or work in a thread",
        name_of(task),
        seconds,
        extra={"stalled": process_of(task)},
    )


@contextmanager
def stall_watch(seconds: float) -> Iterator[None]:
    """Watch the loop while the block runs; inf for not at all. Synchronous."""
    if seconds == math.inf:
        yield
        return
    watch = StallWatch(seconds)
    try:
        yield
    finally:
        watch.close()
