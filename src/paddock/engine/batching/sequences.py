"""The sequence allocator: which request holds which sequence id of a context.

Plain state without trio. A lease is (sequence id, generation): the generation grows with every lease of an id, so
that a row of a released sequence can be told from one of its next holder. The lowest free id goes first: active ids
stay nearly contiguous, and llama.cpp keeps contiguous ids in one ubatch.
"""

from __future__ import annotations

import heapq

import attrs

__all__ = ["Lease", "SequenceAllocator"]


@attrs.frozen
class Lease:
    """The right to use one sequence of a context until it is released."""

    sequence_id: int
    generation: int


class SequenceAllocator:
    """Hands out the ids 0 to ``n_seq_max - 1``; every operation is O(log n)."""

    def __init__(self, n_seq_max: int) -> None:
        self._n = n_seq_max
        self._free = list(range(n_seq_max))
        self._generation = [0] * n_seq_max
        self._held: set[Lease] = set()

    @property
    def n_seq_max(self) -> int:
        return self._n

    @property
    def free(self) -> int:
        """How many sequences are free."""
        return len(self._free)

    def lease(self) -> Lease | None:
        """The lowest free id under a new generation, or None when all are held."""
        if not self._free:
            return None
        sequence_id = heapq.heappop(self._free)
        self._generation[sequence_id] += 1
        lease = Lease(sequence_id, self._generation[sequence_id])
        self._held.add(lease)
        return lease

    def release(self, lease: Lease) -> bool:
        """Frees the id; False when this lease is not (or no longer) held."""
        if lease not in self._held:
            return False
        self._held.remove(lease)
        heapq.heappush(self._free, lease.sequence_id)
        return True
