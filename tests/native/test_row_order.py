"""What is refused before llama.cpp sees it, and how rows are ordered and gaps filled."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.errors import InvalidBatch
from paddock.native.batch import Chunk, SampleMode
from paddock.native.row_order import Padding, RowLimits, RowOrder, order_rows, pass_cost


@attrs.frozen
class HeldSequence:
    generation: int | None
    position: int


LIMITS = RowLimits(n_vocab=100, n_ctx=64, n_seq_max=8, n_batch=16, fill_gaps=True)
HELD = {
    0: HeldSequence(10, 0),
    1: HeldSequence(11, 5),
    2: HeldSequence(12, 64),
    3: HeldSequence(None, 0),
    4: HeldSequence(14, 60),
    5: HeldSequence(15, 1),
    6: HeldSequence(16, 1),
    7: HeldSequence(17, 1),
}


def chunk(sequence_id: Any, generation: Any, position: Any, tokens: Any = (1,), sample: Any = 1) -> Chunk:
    return Chunk(sequence_id, generation, position, tokens, sample)


@pytest.mark.parametrize(
    ("chunks", "problem"),
    [
        ([], "empty"),
        ([chunk(0, 10, 0, [1] * 17)], "n_batch=16"),
        ([chunk(0, 10, 0, [1] * 9), chunk(1, 11, 5, [1] * 8)], "n_batch=16"),
        ([chunk(8, 10, 0)], "sequence 8 is not one of 0..7"),
        ([chunk(-1, 10, 0)], "sequence -1 is not one of"),
        ([chunk("0", 10, 0)], "sequence '0' is not one of"),
        ([chunk(3, 0, 0)], "not open"),
        ([chunk(3, None, 0)], "not open"),
        ([chunk(0, 9, 0)], "stale"),
        ([chunk(0, None, 0)], "stale"),
        ([chunk(0, 10, 1)], "holds 0 tokens"),
        ([chunk(1, 11, 4)], "holds 5 tokens"),
        ([chunk(1, 11, 31)], "holds 5 tokens"),
        ([chunk(1, 11, "5")], "holds 5 tokens"),
        ([chunk(0, 10, 0, [])], "no tokens"),
        ([chunk(0, 10, 0, [-1])], "token -1"),
        ([chunk(0, 10, 0, [100])], "token 100"),
        ([chunk(0, 10, 0, [1, 2, 100])], "token 100"),
        ([chunk(0, 10, 0, [1, -5, 2])], "token -5"),
        ([chunk(0, 10, 0, [2**40])], "token 1099511627776"),
        ([chunk(0, 10, 0, [1, 10**30])], "not all token ids"),
        ([chunk(0, 10, 0, [1.0])], "not all token ids"),
        ([chunk(0, 10, 0, [1, None])], "not all token ids"),
        ([chunk(0, 10, 0, [True])], "not all token ids"),
        ([chunk(0, 10, 0, "ab")], "not all token ids"),
        ([chunk(0, 10, 0, [[1, 2]])], "not all token ids"),
        ([chunk(0, 10, 0, 5)], "no sequence"),
        ([chunk(0, 10, 0), chunk(1, 11, 5), chunk(0, 10, 0)], "stands twice"),
        ([chunk(2, 12, 64)], "64 cells"),
        ([chunk(4, 14, 60, [1] * 5)], "64 cells"),
        ([chunk(0, 10, 0, [1], 3)], "no SampleMode"),
        ([chunk(0, 10, 0, [1], None)], "no SampleMode"),
    ],
)
def test_a_wrong_batch_is_refused(chunks: list[Chunk], problem: str) -> None:
    with pytest.raises(InvalidBatch, match=problem):
        order_rows(chunks, HELD, LIMITS)


def test_a_ragged_token_list_is_refused() -> None:
    with pytest.raises(InvalidBatch, match="not all token ids"):
        order_rows([chunk(0, 10, 0, [1, [2, 3]])], HELD, LIMITS)


def test_numpy_tokens_are_accepted() -> None:
    assert order_rows([chunk(0, 10, 0, np.array([1, 2], np.int32))], HELD, LIMITS).n_rows == 2


def single(*names: int) -> list[Chunk]:
    """One row for each sequence, all of them open and empty in ``WIDE``."""
    return [chunk(name, 0, 0) for name in names]


WIDE = {name: HeldSequence(0, 0) for name in range(32)}
WIDE_LIMITS = RowLimits(n_vocab=100, n_ctx=64, n_seq_max=32, n_batch=64, fill_gaps=True)


def padded(*names: int, held: dict[int, HeldSequence] = WIDE, limits: RowLimits = WIDE_LIMITS) -> list[int]:
    return [padding.sequence_id for padding in order_rows(single(*names), held, limits).paddings]


def test_chunks_are_ordered_by_sequence_id() -> None:
    plan = order_rows([chunk(5, 15, 1), chunk(0, 10, 0), chunk(1, 11, 5)], HELD, LIMITS)
    assert [c.sequence_id for c in plan.chunks] == [0, 1, 5]


def test_a_gap_is_filled_where_another_pass_would_cost_more() -> None:
    assert padded(0, 1, 3, 4) == [2]
    assert padded(0, 1, 2, 4, 5, 6, 8, 9) == [3, 7]
    assert padded(0, 1, 2, 6, 7) == [3, 4, 5]
    assert padded(0, 1, 2, 9, 10) == []
    assert padded(0, 1, 2, 3) == []


def test_a_gap_beside_a_single_row_is_left_since_such_a_pass_is_cheap() -> None:
    assert padded(0, 2) == []
    assert padded(0, 1, 2, 4) == []
    assert padded(0, 2, 3, 4) == []
    assert padded(0, 2, 4, 6, 8) == []


def test_an_idle_sequence_is_padded_where_it_stands() -> None:
    held = WIDE | {2: HeldSequence(4, 17)}
    assert order_rows(single(0, 1, 3, 4), held, WIDE_LIMITS).paddings == (Padding(2, 17),)


def test_gaps_are_not_filled_beside_prompt_rows_or_in_a_full_sequence_or_without_room() -> None:
    with_prompt = [*single(0, 1, 3), chunk(4, 0, 0, [1, 2])]
    assert order_rows(with_prompt, WIDE, WIDE_LIMITS).paddings == ()
    assert padded(0, 1, 3, 4, held=WIDE | {2: HeldSequence(None, 64)}) == []
    assert padded(0, 1, 3, 4, limits=attrs.evolve(WIDE_LIMITS, n_batch=4)) == []
    assert padded(0, 1, 3, 4, limits=attrs.evolve(WIDE_LIMITS, fill_gaps=False)) == []


def passes(plan: RowOrder) -> list[int]:
    """Rows of each pass, as llama.cpp splits a batch of single rows."""
    ids = sorted([c.sequence_id for c in plan.chunks] + [padding.sequence_id for padding in plan.paddings])
    sizes = [1]
    for before, after in pairwise(ids):
        if after == before + 1:
            sizes[-1] += 1
        else:
            sizes.append(1)
    return sizes


@given(
    st.sets(st.integers(0, 31), min_size=1, max_size=32),
    st.booleans(),
    st.integers(1, 40),
    st.randoms(use_true_random=False),
)
def test_padding_never_exceeds_the_batch_stands_between_chunks_and_never_costs_more(
    ids: set[int], fill_gaps: bool, n_batch: int, random: Any
) -> None:
    limits = RowLimits(n_vocab=10, n_ctx=64, n_seq_max=32, n_batch=n_batch, fill_gaps=fill_gaps)
    held = {name: HeldSequence(0, name % 5) for name in range(32)}
    chunks = [chunk(name, 0, name % 5, [1], random.choice(list(SampleMode))) for name in ids]
    random.shuffle(chunks)
    if len(chunks) > n_batch:
        with pytest.raises(InvalidBatch):
            order_rows(chunks, held, limits)
        return
    plan = order_rows(chunks, held, limits)
    assert plan.n_rows == len(plan.chunks) + len(plan.paddings) <= n_batch
    between = {padding.sequence_id for padding in plan.paddings}
    assert not between & ids
    assert all(min(ids) < name < max(ids) for name in between)
    assert {c.sequence_id for c in plan.chunks} == ids
    bare = RowOrder(plan.chunks, (), len(plan.chunks))
    assert sum(map(pass_cost, passes(plan))) <= sum(map(pass_cost, passes(bare)))


# --- pairs --------------------------------------------------------------------------------------------------


@given(
    st.sets(st.integers(0, 31), min_size=1, max_size=32),
    st.sets(st.integers(0, 31)),
    st.booleans(),
)
def test_a_paired_row_is_never_alone_in_its_pass(ids: set[int], full: set[int], fill_gaps: bool) -> None:
    held = {name: HeldSequence(name, 64 if name in full - ids else name) for name in range(32)}
    limits = RowLimits(
        n_vocab=10, n_ctx=64, n_seq_max=32, n_batch=32, fill_gaps=fill_gaps, pair_rows=True, spare_rows=32
    )
    chunks = [Chunk(name, name, held[name].position, [1]) for name in ids]
    lone = any(name - 1 not in ids and name + 1 not in ids and {name - 1, name + 1} <= full - ids for name in ids)
    try:
        order = order_rows(chunks, held, limits)
    except InvalidBatch:
        assert lone or full  # both neighbours are full, or one lies beyond the ids
        return
    rows = sorted([chunk.sequence_id for chunk in order.chunks] + [padding.sequence_id for padding in order.paddings])
    assert len(set(rows)) == len(rows) == order.n_rows
    assert all(name - 1 in rows or name + 1 in rows for name in rows)
    assert all(held[padding.sequence_id].position < 64 for padding in order.paddings)


def test_rows_of_prompts_are_left_as_they_are_where_rows_are_paired() -> None:
    order = order_rows([chunk(0, 10, 0, [1, 2])], HELD, attrs.evolve(LIMITS, pair_rows=True))
    assert order.paddings == ()
