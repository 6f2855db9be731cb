"""Ctrl-C and SIGTERM while an event loop runs: the work is cancelled, everything stops in order, and then we leave."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import trio

from paddock.cli.failures import Interrupted
from paddock.cli.terminal import restore_terminal

__all__ = ["Interrupts", "run_interruptible"]

T = TypeVar("T")


class Interrupts:
    """What a signal does now: by default it cancels everything."""

    def __init__(self, scope: trio.CancelScope) -> None:
        self._scope = scope
        self._answer: Callable[[], None] | None = None
        self.received: int | None = None
        """The signal that ends the program."""

    @contextmanager
    def answered_by(self, answer: Callable[[], None], *, when: bool = True) -> Iterator[None]:
        """Within the block the first Ctrl-C calls ``answer`` and no more; another one ends the program."""
        self._answer = answer if when else None
        try:
            yield
        finally:
            self._answer = None

    def end(self, signum: int) -> None:
        """Ends the program as this signal would."""
        self.received = signum
        self._scope.cancel()

    async def _watch(self, signals: AsyncIterator[int]) -> None:
        async for signum in signals:
            self._receive(signum)

    def _receive(self, signum: int) -> None:
        if signum == signal.SIGINT and self._answer is not None:
            answer, self._answer = self._answer, None
            answer()
        elif self.received is None:
            self.end(signum)
        else:
            # Asked twice: leave at once. Workers die with their parent, so none is left behind.
            restore_terminal()
            os._exit(128 + signum)


def run_interruptible(work: Callable[[Interrupts], Awaitable[T]]) -> T:
    """Runs ``work`` on trio. Raises :class:`Interrupted` when a signal ended it, after it has been torn down."""
    return trio.run(_run, work)


async def _run(work: Callable[[Interrupts], Awaitable[T]]) -> T:
    finished: list[T] = []
    failure: Exception | None = None
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            interrupts = Interrupts(trio.CancelScope())
            nursery.start_soon(interrupts._watch, signals)
            try:
                with interrupts._scope:
                    finished.append(await work(interrupts))
            except Exception as error:
                failure = error
            nursery.cancel_scope.cancel()
    if interrupts.received is not None:
        raise Interrupted(interrupts.received)
    if failure is not None:
        raise failure
    return finished[0]
