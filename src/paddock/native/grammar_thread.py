"""A thread for work whose length depends on what a caller wrote, and that nobody can interrupt.

llguidance bounds its work by counting steps, not by time, and some grammars spend seconds in one call. It lets go of
the interpreter's lock meanwhile, so on a thread of its own such a call holds up nobody: whoever waits for it gives up
when it has used more processor time than it was given. Processor time, because a busy machine must not fail a request.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["GrammarJob", "GrammarThread"]

T = TypeVar("T")

_STACK_BYTES = 128 * 2**20
"""Virtual: pages are taken as they are used. llguidance walks grammars by recursion, an overflow ends the process."""

_LOOK_SECONDS = 0.02
_starting = threading.Lock()


class GrammarJob(Generic[T]):
    """One call: :meth:`wait` for it from one other thread."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._done = threading.Event()
        self._result: T | None = None
        self._error: BaseException | None = None
        self._clock: int | None = None
        self._begun = 0.0

    def run(self, clock: int) -> None:
        self._begun = time.clock_gettime(clock)
        self._clock = clock
        try:
            self._result = self._call()
        except BaseException as error:  # a panic of Rust code is no Exception
            self._error = error
        self._done.set()

    def wait(self, seconds: float) -> bool:
        """Whether the call ended before it had used so much processor time (its turn to begin is waited for, too)."""
        while not self._done.wait(_LOOK_SECONDS):
            if self._clock is None:
                continue
            with contextlib.suppress(OSError):  # the thread has ended, and the call with it
                if time.clock_gettime(self._clock) - self._begun > seconds:
                    return self._done.is_set()
        return True

    def result(self) -> T:
        """What the call returned, or its exception."""
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]


class GrammarThread:
    """Runs jobs one after another; :meth:`stop` when no more come. A job that runs then is left alone."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[GrammarJob[object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name="paddock grammar", daemon=True)
        with _starting:  # the size is the process's, for threads that start from now on
            before = threading.stack_size(_STACK_BYTES)
            try:
                self._thread.start()
            finally:
                threading.stack_size(before)

    def submit(self, call: Callable[[], T]) -> GrammarJob[T]:
        job = GrammarJob(call)
        self._jobs.put(job)  # type: ignore[arg-type]
        return job

    def stop(self) -> None:
        """Ends the thread behind the jobs submitted. Does not wait. Idempotent."""
        self._jobs.put(None)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _loop(self) -> None:
        clock = time.pthread_getcpuclockid(threading.get_ident())
        while (job := self._jobs.get()) is not None:
            job.run(clock)
            del job
