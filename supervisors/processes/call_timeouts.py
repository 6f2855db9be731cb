"""The timeouts of calls: one timer task for a node instead of one cancel scope for a call."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from supervisors.calls.call import From

MAX_BUCKETS = 64
"""How many different timeouts are looked after at a time."""


def deadline_after(seconds: float) -> float:
    """The point of trio's clock that is ``seconds`` away; less than none are none. ValueError for NaN, TypeError for
    what is no number: asked before anything is begun, so that a mistake in a timeout has no effect."""
    if math.isnan(seconds):
        raise ValueError("timeout must be a number of seconds, not nan")
    return trio.current_time() + seconds


class CallTimers:
    """Who waits for an answer, and until when.

    A cancel scope costs as much as half a call, and almost every call is answered long before its time is up. Calls
    with the same timeout expire in the order they were made, so an ordered dict for each timeout holds them sorted:
    adding and removing take constant time, and nothing remains of a call that was answered.

    The task wakes at the deadline it last heard of, even if that call has been answered since. On a virtual clock a
    needless wake would move the clock, so there the alarm is taken off when the last call is answered; on a real clock
    it strikes once, finds nothing, and rests.
    """

    __slots__ = ("_alarm", "_buckets", "_now", "_scope", "_wakes_at", "exact")

    def __init__(self) -> None:
        self._buckets: dict[float, dict[From, float]] = {}
        self._wakes_at = math.inf
        self._now = trio.current_time
        self._alarm = trio.CancelScope()
        self._scope = trio.CancelScope(shield=True)
        self.exact = True
        """True when no alarm may strike for nothing."""

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def add(self, from_: From, seconds: float) -> bool:
        """Have ``from_`` time out in ``seconds``, unless it is settled before. Synchronous.

        False when `MAX_BUCKETS` other timeouts are waited for: each would make the next slower to find, and a cancel
        scope is the better timer then.
        """
        deadline = self._now() + seconds
        bucket = self._buckets.get(seconds)
        if bucket is None:
            if len(self._buckets) >= MAX_BUCKETS:
                self._buckets = {key: bucket for key, bucket in self._buckets.items() if bucket}
                if len(self._buckets) >= MAX_BUCKETS:
                    return False
            bucket = self._buckets[seconds] = {}
        bucket[from_] = deadline
        from_._bucket = bucket
        if deadline < self._wakes_at:
            self._wakes_at = deadline
            self._alarm.deadline = deadline
        return True

    def rest(self) -> None:
        """Take the alarm off when nobody waits any more."""
        if self._wakes_at != math.inf and not any(self._buckets.values()):
            self._wakes_at = self._alarm.deadline = math.inf

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the timer task while the block runs, also after a cancellation from outside: whatever is stopped in an
        orderly way inside may make calls until its end."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run)
            try:
                yield
            finally:
                self._scope.cancel()

    @trio.lowlevel.enable_ki_protection
    async def _run(self) -> None:
        clock = trio.lowlevel.current_clock()
        self._now = clock.current_time
        self.exact = hasattr(clock, "jump")
        with self._scope:
            while True:
                self._wakes_at = min((next(iter(b.values())) for b in self._buckets.values() if b), default=math.inf)
                with trio.CancelScope(deadline=self._wakes_at) as self._alarm:
                    await trio.sleep_forever()
                self._expire(trio.current_time())

    def _expire(self, now: float) -> None:
        for bucket in tuple(self._buckets.values()):
            while bucket:
                from_, deadline = next(iter(bucket.items()))
                if deadline > now:
                    break
                from_.time_out()
