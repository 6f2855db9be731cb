"""The admission queue: who waits for a sequence, and who is next. Plain state without trio.

By priority, then first come first served. A place is taken when a request enlists; it can only be given a sequence
once its prompt is tokenized ("ready"), and it keeps its place meanwhile without holding up those behind it.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["AdmissionQueue"]

K = TypeVar("K", bound=Hashable)


_Place = tuple[int, int]
"""(negated priority, arrival): smaller goes first, and no two are equal."""


class AdmissionQueue(Generic[K]):
    """At most ``limit`` waiting keys, plus as many as there are free sequences for them to take at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._arrivals = 0
        self._places: dict[K, _Place] = {}
        self._ready: list[tuple[_Place, K]] = []  # a heap; entries of keys that have left are skipped

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: K) -> bool:
        return key in self._places

    def waiting(self) -> list[K]:
        """Everybody who waits, in the order of arrival."""
        return list(self._places)

    def room(self, free_sequences: int) -> bool:
        """Whether one more may enlist."""
        return len(self._places) < self._limit + free_sequences

    def enlist(self, key: K, priority: int) -> None:
        """Takes a place; a higher ``priority`` goes before a lower one."""
        self._arrivals += 1
        self._places[key] = (-priority, self._arrivals)

    def make_ready(self, key: K) -> bool:
        """The key may be given a sequence; False when it does not wait (any more)."""
        place = self._places.get(key)
        if place is None:
            return False
        heapq.heappush(self._ready, (place, key))
        return True

    def next(self) -> K | None:
        """Takes out whoever is next; None when nobody is ready."""
        while self._ready:
            place, key = heapq.heappop(self._ready)
            if self._places.get(key) == place:
                del self._places[key]
                return key
        return None

    def discard(self, key: K) -> bool:
        """Takes a key out, wherever it stands."""
        if self._places.pop(key, None) is None:
            return False
        if len(self._ready) > 2 * len(self._places) + 64:
            self._ready = [(place, key) for place, key in self._ready if self._places.get(key) == place]
            heapq.heapify(self._ready)
        return True
