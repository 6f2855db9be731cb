"""The bounded way from a request actor to its consumer.

The actor puts, synchronously; the consumer gets. Putting never fails: the actor asks :attr:`Delivery.full` and
pauses its row instead, so what can pile up beyond the bound is the one step already under way. Both sides live on
the trio thread.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable

import trio

from paddock.engine.requests.results import Completion, Delta
from paddock.errors import PaddockError

__all__ = ["Delivery"]


class Delivery:
    """Deltas, then exactly one outcome (a completion or an error); the first outcome stands."""

    __slots__ = (
        "_changed",
        "_deltas",
        "_limit",
        "_streaming",
        "completion",
        "error",
        "on_drained",
        "started",
    )

    def __init__(self, limit: int, *, streaming: bool = True) -> None:
        self._limit = limit
        self._streaming = streaming  # False: the consumer wants the completion only, deltas are not kept
        self._deltas: deque[Delta] = deque()
        self._changed = trio.Event()
        self.started = False
        self.completion: Completion | None = None
        self.error: PaddockError | None = None
        """Raised as a copy: one worker's death ends many requests, and each raise writes a traceback into its error."""
        self.on_drained: Callable[[], None] | None = None
        """Called when a consumer has emptied half of a buffer that was full; set by the actor while it pauses."""

    @property
    def full(self) -> bool:
        return len(self._deltas) >= self._limit

    @property
    def waiting(self) -> int:
        """Deltas that the consumer has not taken yet."""
        return len(self._deltas)

    @property
    def closed(self) -> bool:
        """Whether the outcome is known (deltas may still wait)."""
        return self.completion is not None or self.error is not None

    # --- actor's side

    def put(self, delta: Delta) -> None:
        if self._streaming and not self.closed:
            self._deltas.append(delta)
            self._wake()

    def start(self) -> None:
        """The request has been accepted into the queue (no outcome yet)."""
        if not self.started:
            self.started = True
            self._wake()

    def complete(self, completion: Completion) -> None:
        if not self.closed:
            self.completion = completion
            self._wake()

    def fail(self, error: PaddockError) -> None:
        if not self.closed:
            self.error = error
            self._wake()

    def _wake(self) -> None:
        self._changed.set()

    # --- consumer's side

    def take(self) -> list[Delta]:
        """All waiting deltas, at once, without waiting."""
        taken = list(self._deltas)
        self._deltas.clear()
        self._drained()
        return taken

    async def receive(self) -> Delta | None:
        """The next delta; None at the end. Raises the request's error after the deltas before it. A checkpoint;
        cancelling it loses nothing."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._deltas:
            if self.error is not None:
                await trio.lowlevel.cancel_shielded_checkpoint()
                raise copy.copy(self.error)
            if self.completion is not None:
                await trio.lowlevel.cancel_shielded_checkpoint()
                return None
            await self._wait()
        # Nothing may come between finding a delta and taking it: another task may read the same request.
        delta = self._deltas.popleft()
        self._drained()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return delta

    async def wait_started(self) -> None:
        """Until the request has been accepted; raises its error when it was refused."""
        while not self.started and not self.closed:
            await self._wait()
        if self.error is not None and not self.started:
            raise copy.copy(self.error)

    async def wait_closed(self) -> Completion:
        """The completion; raises the request's error. Deltas stay where they are."""
        while not self.closed:
            await self._wait()
        if self.error is not None:
            raise copy.copy(self.error)
        assert self.completion is not None
        return self.completion

    async def _wait(self) -> None:
        if self._changed.is_set():
            self._changed = trio.Event()
        await self._changed.wait()

    def _drained(self) -> None:
        if self.on_drained is not None and len(self._deltas) * 2 <= self._limit:
            resume, self.on_drained = self.on_drained, None
            resume()
