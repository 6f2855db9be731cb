"""From chunks to rows: everything that can be wrong with a batch is found here, before llama.cpp sees it.

A batch that is too long, names a wrong sequence or token, or does not continue where its sequence stands
would end the process, corrupt a sequence or be computed for a sequence that somebody else has by now.

**Order and gaps.** With one stream per sequence llama.cpp puts only rows of consecutive sequence ids into one ubatch,
and each ubatch reads all weights again. So chunks are ordered by sequence id, and a gap in the ids may be filled with
padding rows in the sequences that are missing: rows that nobody sees, whose cells are removed again after the call.
Whether that pays follows from what a pass over the weights costs (:func:`pass_cost`).

**Pairs.** llama.cpp multiplies F16, BF16 and F32 matrices with another kernel for one row than for several. Where rows
are to be *paired*, a pass of one row gets a padding row in a sequence beside it, so that the first kernel never runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Protocol

import attrs
import numpy as np

from paddock.errors import InvalidBatch
from paddock.native.batch import Chunk, SampleMode

__all__ = ["HeldSequence", "Padding", "RowLimits", "RowOrder", "order_rows", "pass_cost"]

_MODES = frozenset(SampleMode)
_INTEGERS = (int, np.integer)
_MARGIN = 0.5  # rows; the costs are no better known than that


@attrs.frozen
class RowLimits:
    """Bounds of one context. ``fill_gaps``: whether gaps may be filled with padding rows. ``pair_rows``: whether a pass
    of a single row is not allowed; there must be two sequences then. ``spare_rows``: how many padding rows a call
    may hold beyond ``n_batch``."""

    n_vocab: int
    n_ctx: int
    n_seq_max: int
    n_batch: int
    fill_gaps: bool
    pair_rows: bool = False
    spare_rows: int = 0


class HeldSequence(Protocol):
    """What a sequence holds: ``position`` tokens, under ``generation`` (None: nobody has opened it)."""

    @property
    def generation(self) -> int | None: ...

    @property
    def position(self) -> int: ...


@attrs.frozen
class Padding:
    """A row that keeps two neighbours in one ubatch; its cell at ``position`` is removed after the call."""

    sequence_id: int
    position: int


@attrs.frozen
class RowOrder:
    """Chunks in the order of their rows, with the padding between them. ``n_rows`` counts both."""

    chunks: tuple[Chunk, ...]
    paddings: tuple[Padding, ...]
    n_rows: int


def order_rows(chunks: Sequence[Chunk], held: Mapping[int, HeldSequence], limits: RowLimits) -> RowOrder:
    """Checks ``chunks`` against what the sequences hold, orders them, and decides on padding.

    Padding is considered where every chunk is a single row (generated tokens): there a gap costs one more
    pass over the weights, a padding row about one row. Under ``pair_rows`` such a row is never left alone.
    Raises :class:`paddock.errors.InvalidBatch`, having changed nothing.
    """
    if not chunks:
        raise InvalidBatch("the batch is empty")
    n_rows = 0
    seen: set[int] = set()
    for chunk in chunks:
        n_rows += _check(chunk, held, limits)
        if n_rows > limits.n_batch:
            raise InvalidBatch(f"the batch has more than n_batch={limits.n_batch} rows")
        if chunk.sequence_id in seen:
            raise InvalidBatch(f"sequence {chunk.sequence_id} stands twice in one batch")
        seen.add(chunk.sequence_id)
    ordered = sorted(chunks, key=lambda chunk: chunk.sequence_id)
    paddings: tuple[Padding, ...] = ()
    if n_rows == len(ordered):
        room = limits.n_batch + limits.spare_rows - n_rows
        if limits.fill_gaps and n_rows > 1:
            paddings = _fill_gaps(ordered, held, limits, room)
        if limits.pair_rows:
            paddings = _pair_rows(ordered, paddings, held, limits, room - len(paddings))
    return RowOrder(tuple(ordered), paddings, n_rows + len(paddings))


def _check(chunk: Chunk, held: Mapping[int, HeldSequence], limits: RowLimits) -> int:
    """Checks one chunk; returns its number of rows."""
    name = chunk.sequence_id
    if not isinstance(name, _INTEGERS) or name not in held:
        raise InvalidBatch(f"sequence {name!r} is not one of 0..{limits.n_seq_max - 1}")
    sequence = held[name]
    if sequence.generation is None:
        raise InvalidBatch(f"sequence {name} is not open")
    if chunk.generation != sequence.generation:
        raise InvalidBatch(
            f"generation {chunk.generation!r} of sequence {name} is stale; it is open as {sequence.generation}"
        )
    if chunk.sample not in _MODES:
        raise InvalidBatch(f"sample={chunk.sample!r} of sequence {name} is no SampleMode")
    if not isinstance(chunk.position, _INTEGERS) or chunk.position != sequence.position:
        raise InvalidBatch(
            f"sequence {name} holds {sequence.position} tokens, so the next position is {sequence.position}, "
            f"not {chunk.position!r}"
        )
    count = _check_tokens(chunk, limits.n_vocab)
    if sequence.position + count > limits.n_ctx:
        raise InvalidBatch(
            f"{count} tokens at position {sequence.position} of sequence {name} do not fit into its "
            f"{limits.n_ctx} cells"
        )
    return count


def _check_tokens(chunk: Chunk, n_vocab: int) -> int:
    tokens = chunk.tokens
    try:
        count = len(tokens)
    except TypeError:
        raise InvalidBatch(f"the tokens of sequence {chunk.sequence_id} are no sequence") from None
    if count == 0:
        raise InvalidBatch(f"the chunk of sequence {chunk.sequence_id} has no tokens")
    if count == 1 and type(tokens[0]) is int:
        lowest = highest = tokens[0]
    else:
        try:
            array = np.asarray(tokens)
        except (ValueError, OverflowError):  # ragged
            array = np.asarray(None)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise InvalidBatch(f"the tokens of sequence {chunk.sequence_id} are not all token ids")
        lowest, highest = int(array.min()), int(array.max())
    if lowest < 0 or highest >= n_vocab:
        wrong = lowest if lowest < 0 else highest
        raise InvalidBatch(f"token {wrong} of sequence {chunk.sequence_id} is not one of 0..{n_vocab - 1}")
    return count


def pass_cost(n_rows: int) -> float:
    """What one pass over the weights costs, in units of a further row in it.

    Measured with ``bench/gaps.py``: Q8_0 weights of 0.1 B parameters, one thread of an AVX-512 CPU: 6.9 ms for one
    row, 22, 26, 37, 40, 67 ms for 2, 3, 5, 8, 16 rows. A single row takes a kernel of its own, which is far cheaper.
    """
    return 2.1 if n_rows == 1 else 4.3 + n_rows


def _fill_gaps(
    ordered: Sequence[Chunk], held: Mapping[int, HeldSequence], limits: RowLimits, room: int
) -> tuple[Padding, ...]:
    """Goes over the runs of consecutive ids and joins each to what stands before it where that is cheaper."""
    paddings: list[Padding] = []
    runs = _runs([chunk.sequence_id for chunk in ordered])
    before = len(runs[0])
    for left, right in pairwise(runs):
        missing = range(left.stop, right.start)
        joined = before + len(missing) + len(right)
        if (
            pass_cost(joined) + _MARGIN < pass_cost(before) + pass_cost(len(right))
            and len(paddings) + len(missing) <= room
            and all(held[name].position < limits.n_ctx for name in missing)
        ):
            paddings += [Padding(name, held[name].position) for name in missing]
            before = joined
        else:
            before = len(right)
    return tuple(paddings)


def _pair_rows(
    ordered: Sequence[Chunk],
    paddings: tuple[Padding, ...],
    held: Mapping[int, HeldSequence],
    limits: RowLimits,
    room: int,
) -> tuple[Padding, ...]:
    """``paddings`` and one more beside each row that would be alone in its pass."""
    taken = {chunk.sequence_id for chunk in ordered} | {padding.sequence_id for padding in paddings}
    added: list[Padding] = []
    for run in _runs(sorted(taken)):
        name = run.start
        if len(run) > 1 or name - 1 in taken:
            continue  # the sequence before it may have been given a padding row for its own sake
        beside = next(
            (side for side in (name + 1, name - 1) if side in held and held[side].position < limits.n_ctx), None
        )
        if beside is None or room <= len(added):
            raise InvalidBatch(f"no cell is left for a row beside the one of sequence {name}")
        taken.add(beside)
        added.append(Padding(beside, held[beside].position))
    return tuple(sorted((*paddings, *added), key=lambda padding: padding.sequence_id))


def _runs(ids: Sequence[int]) -> list[range]:
    """Ascending ids as runs of consecutive ones."""
    runs = [range(ids[0], ids[0] + 1)]
    for name in ids[1:]:
        if name == runs[-1].stop:
            runs[-1] = range(runs[-1].start, name + 1)
        else:
            runs.append(range(name, name + 1))
    return runs
