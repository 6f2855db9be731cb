"""Which blocks are saved when: each once, in order, and none left behind."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.batching.save_policy import (
    NEVER,
    RECOMPUTE_SECONDS,
    SavePolicy,
    blocks_to_save,
    next_save,
    save_interval,
)

POLICY = SavePolicy(block_tokens=64, save_every=128)


def due(saved: int, cached: int, prompt_length: int, *, ending: bool = False, policy: SavePolicy = POLICY) -> list[int]:
    return list(
        blocks_to_save(policy, saved=saved, cached=cached, prompt_length=prompt_length, ending=ending),
    )


@pytest.mark.parametrize(
    ("saved", "cached", "prompt_length", "expected"),
    [
        (0, 128, 300, []),  # in the middle of the prompt
        (0, 300, 300, [0, 1, 2, 3]),  # the prompt is complete
        (2, 300, 300, [2, 3]),  # of which two blocks were restored
        (4, 310, 300, []),
        (4, 427, 300, []),
        (4, 428, 300, [4, 5]),  # 128 generated tokens later
        (6, 511, 300, []),
        (6, 512, 300, [6, 7]),
        (0, 60, 60, []),  # no full block yet
        (0, 187, 60, []),
        (0, 188, 60, [0, 1]),
    ],
)
def test_blocks_are_due_after_the_prompt_and_every_so_many_tokens(
    saved: int, cached: int, prompt_length: int, expected: list[int]
):
    assert due(saved, cached, prompt_length) == expected


def test_the_end_saves_what_is_left_also_of_a_prompt_that_was_not_completed():
    assert due(4, 427, 300, ending=True) == [4, 5]
    assert due(0, 130, 300, ending=True) == [0, 1]
    assert due(2, 130, 300, ending=True) == []
    assert due(3, 130, 300, ending=True) == []


def test_without_a_stride_a_reply_is_saved_at_its_end_only():
    never = SavePolicy(64, 0)
    assert due(4, 4000, 300, policy=never) == []
    assert due(4, 4000, 300, policy=never, ending=True) == list(range(4, 62))


@given(
    block_tokens=st.sampled_from([16, 64, 256]),
    save_every=st.integers(0, 300),
    prompt_length=st.integers(1, 700),
    reply=st.integers(0, 700),
    restored=st.integers(0, 5),
    chunks=st.randoms(use_true_random=False),
)
def test_every_full_block_is_saved_once_in_order_and_no_reply_runs_far_ahead_of_its_saves(
    block_tokens: int, save_every: int, prompt_length: int, reply: int, restored: int, chunks: random.Random
):
    policy = SavePolicy(block_tokens, save_every)
    saved = min(restored, (prompt_length - 1) // block_tokens)
    cached, first, seen = saved * block_tokens, saved, []
    while cached < prompt_length + reply:
        most = prompt_length - cached if cached < prompt_length else 1
        cached += chunks.randint(1, most)
        blocks = blocks_to_save(policy, saved=saved, cached=cached, prompt_length=prompt_length, ending=False)
        seen += blocks
        saved += len(blocks)
        assert saved * block_tokens <= cached
        if cached >= prompt_length:
            assert saved >= prompt_length // block_tokens
            if save_every:
                assert cached - max(prompt_length, saved * block_tokens) < max(save_every, 1) + block_tokens
    seen += blocks_to_save(policy, saved=saved, cached=cached, prompt_length=prompt_length, ending=True)
    assert seen == list(range(first, cached // block_tokens))


@given(
    block_tokens=st.sampled_from([16, 64]),
    save_every=st.integers(0, 100),
    prompt_length=st.integers(1, 200),
    saved=st.integers(0, 15),
    cached=st.integers(0, 400),
)
def test_the_next_save_is_where_blocks_are_due_and_not_before(
    block_tokens: int, save_every: int, prompt_length: int, saved: int, cached: int
):
    policy = SavePolicy(block_tokens, save_every)
    at = next_save(policy, saved=saved, prompt_length=prompt_length)
    blocks = blocks_to_save(policy, saved=saved, cached=cached, prompt_length=prompt_length, ending=False)
    assert bool(blocks) == (cached >= at)
    assert (at == NEVER) == (save_every == 0 and saved >= prompt_length // block_tokens)


@given(st.integers(0, 1000), st.integers(16, 128), st.floats(0, 10))
def test_what_has_to_be_computed_again_takes_a_second_or_a_block_at_most(
    save_every: int, block_tokens: int, step_seconds: float
) -> None:
    interval = save_interval(save_every, block_tokens, step_seconds)
    assert (interval == 0) == (save_every == 0)
    assert interval <= save_every
    if save_every:
        assert interval == min(save_every, block_tokens) or interval * step_seconds <= RECOMPUTE_SECONDS
        assert interval == save_every or (interval + 1) * step_seconds > RECOMPUTE_SECONDS * 0.99
