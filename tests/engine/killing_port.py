"""A port that kills its worker in the middle of things, by a plan."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from typing import Any, ClassVar

import attrs

from paddock.engine.worker.messages import RunRestoreBlocks, RunSampleLogits, RunSaveBlocks, RunStep
from paddock.engine.worker.port import Port


@attrs.frozen
class Kill:
    """``kind``: "prefill", "decode", "restore", "save" or "hook", which it was sent last; ``after`` so many steps of
    the worker's life in which something was sampled; ``delay`` in seconds: it may be doing something else by then."""

    kind: str
    after: int
    delay: float = 0.0
    number: signal.Signals = signal.SIGKILL


class KillingPort(Port):
    """Subclassed with a ``plan``; each worker is killed by the next entry."""

    plan: ClassVar[deque[Kill]] = deque()
    killed: ClassVar[list[str]] = []

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._sampled_steps = 0
        self._armed = True

    def _run(self, work: RunStep | RunSampleLogits) -> None:
        super()._run(work)
        if isinstance(work, RunSampleLogits):
            self._came("hook")
        elif work.chunks:
            self._sampled_steps += any(chunk.sample for chunk in work.chunks)
            self._came("prefill" if any(len(chunk.tokens) > 1 for chunk in work.chunks) else "decode")

    def _save(self, work: RunSaveBlocks) -> None:
        super()._save(work)
        self._came("save")

    def _restore(self, work: RunRestoreBlocks) -> None:
        super()._restore(work)
        self._came("restore")

    def _came(self, kind: str) -> None:
        plan = type(self).plan
        if not plan or not self._armed or plan[0].kind != kind or self._sampled_steps < plan[0].after:
            return
        self._armed = False  # one death for each life
        kill = plan.popleft()
        assert self._transport is not None
        assert self._transport.os_pid is not None
        type(self).killed.append(kind)
        timer = threading.Timer(kill.delay, _kill, (self._transport.os_pid, kill.number))
        timer.daemon = True
        timer.start()


def _kill(os_pid: int, number: signal.Signals) -> None:
    try:
        os.kill(os_pid, number)
    except ProcessLookupError:
        pass
