"""The batch policy: which rows go into the next decode call. A pure function of what is running.

Rules, in order:

1. Running streams come first: every sequence that has a token to decode gets one row, up to the recipe's cap; beyond
   the cap, the least recently served go first.
2. Prompt rows go in chunks. While anybody decodes, a chunk is at most ``prefill_chunk`` rows, and after a chunk the
   decoders have their turn: a long prompt stalls a running stream for one chunk at most.
3. Which prompt is next: highest priority, then the least recently served. A request enters with the current step as
   its last service, so a newcomer waits for one chunk of each prompt before it, and nobody starves.
4. A chunk never leaves a rest below the recipe's minimum.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from paddock.engine.batching.recipes import Recipe

__all__ = ["BatchLimits", "DecodeRow", "Plan", "PrefillRow", "PrefillSlice", "chunk_length", "plan_batch"]


@attrs.frozen
class DecodeRow:
    """A sequence with one sampled token that is not in the cache yet."""

    sequence_id: int
    priority: int
    last_served: int


@attrs.frozen
class PrefillRow:
    """A sequence with ``remaining`` prompt tokens to compute."""

    sequence_id: int
    priority: int
    last_served: int
    remaining: int


@attrs.frozen
class BatchLimits:
    """What one decode call may hold."""

    n_batch: int
    prefill_chunk: int
    recipe: Recipe


@attrs.frozen
class PrefillSlice:
    sequence_id: int
    length: int


@attrs.frozen
class Plan:
    """One decode call: a row for each of ``decode`` and a chunk for each of ``prefill``, ids ascending."""

    decode: tuple[int, ...] = ()
    prefill: tuple[PrefillSlice, ...] = ()

    @property
    def empty(self) -> bool:
        return not self.decode and not self.prefill


def chunk_length(remaining: int, budget: int, minimum: int, n_batch: int) -> int:
    """How many of ``remaining`` prompt rows to compute now: at most ``budget``, never leaving a rest below ``minimum``.

    Only when no such split exists does the chunk exceed the budget, by fewer than ``minimum`` rows and never beyond
    ``n_batch``. A prompt that is shorter than ``minimum`` is computed whole.
    """
    length = min(remaining, max(budget, minimum))
    rest = remaining - length
    if 0 < rest < minimum:
        if remaining - minimum >= minimum:
            length = remaining - minimum
        elif remaining <= n_batch:
            length = remaining
    return length


def plan_batch(
    decode: Sequence[DecodeRow], prefill: Sequence[PrefillRow], limits: BatchLimits, *, prefill_turn: bool
) -> Plan:
    """The next decode call. ``prefill_turn`` says that the last call was one of decode rows."""
    if not decode and not prefill:
        return Plan()
    recipe = limits.recipe
    if recipe.separate_prefill:
        if prefill and (prefill_turn or not decode):
            budget = limits.prefill_chunk if decode else limits.n_batch
            return Plan(prefill=_slices(prefill, budget, limits, most=1))
        return Plan(decode=_decode_ids(decode, limits, most=limits.n_batch))
    # Where the decoders alone could fill every call, one row stays for the prompts: they must not wait for ever.
    ids = _decode_ids(decode, limits, most=limits.n_batch - bool(prefill))
    room = limits.n_batch - len(ids)
    budget = min(room, limits.prefill_chunk) if ids else room
    return Plan(decode=ids, prefill=_slices(prefill, budget, limits, most=len(prefill)))


def _decode_ids(rows: Sequence[DecodeRow], limits: BatchLimits, *, most: int) -> tuple[int, ...]:
    cap = most if limits.recipe.decode_row_cap is None else min(most, limits.recipe.decode_row_cap)
    if len(rows) > cap:
        # Not by priority: a stream that has begun must not stall for as long as seven others are more important.
        rows = sorted(rows, key=lambda row: (row.last_served, -row.priority, row.sequence_id))[:cap]
    return tuple(sorted(row.sequence_id for row in rows))


def _slices(rows: Iterable[PrefillRow], budget: int, limits: BatchLimits, *, most: int) -> tuple[PrefillSlice, ...]:
    slices: list[PrefillSlice] = []
    for row in sorted(rows, key=lambda row: (-row.priority, row.last_served, row.sequence_id)):
        if budget <= 0 or len(slices) >= most:
            break
        length = chunk_length(row.remaining, budget, limits.recipe.minimum_chunk, limits.n_batch)
        slices.append(PrefillSlice(row.sequence_id, length))
        budget -= length
    return tuple(sorted(slices, key=lambda item: item.sequence_id))
