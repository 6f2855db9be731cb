"""A request's tokens on their way into the cache, as the batch policy schedules them: no model, no worker."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from paddock.cache.resume import resume_point
from paddock.engine.batching.policy import BatchLimits, plan_batch
from paddock.engine.batching.recipes import CANONICAL, FAST, Recipe, recipe_for
from paddock.engine.batching.running import Running, chunks_of, rows_of, sampler_history
from paddock.engine.batching.sequences import Lease
from paddock.engine.requests.messages import Admit
from paddock.native.batch import SampleMode
from paddock.sampling.parameters import SamplingParameters

K_QUANTS = recipe_for("preferred", {"q4_K", "q6_K"})
NOBODY: Any = None
FLAGS = st.lists(st.tuples(st.sampled_from([0, 1]), st.integers(1, 40)), max_size=12).map(
    lambda runs: b"".join(bytes([flag]) * length for flag, length in runs)
)


def segment_of(flags: bytes, position: int) -> tuple[int, int]:
    """Start and end of the prompt segment that the token at ``position`` stands in."""
    start = end = position
    while start > 0 and not flags[start - 1]:
        start -= 1
    while end < len(flags) and not flags[end]:
        end += 1
    return start, end


def admit(
    flags: bytes, reply: list[int], max_tokens: int, *, name: int = 0, recipe: Recipe = CANONICAL, **more: Any
) -> Running:
    message = Admit(
        request=NOBODY,
        lease=Lease(name, 1),
        prompt=list(range(len(flags))),
        sampling=SamplingParameters(seed=1),
        max_tokens=max_tokens,
        end_tokens=frozenset(),
        priority=0,
        hooked=False,
        generated=flags,
        reply=reply,
        **more,
    )
    return Running.admitted(message, 0, recipe)


@given(
    recipe=st.sampled_from([CANONICAL, K_QUANTS, FAST]),
    requests=st.lists(
        st.tuples(FLAGS.filter(len), st.integers(0, 5), st.integers(6, 12), st.integers(0, 30)),
        min_size=1,
        max_size=6,
    ),
    prefill_chunk=st.integers(16, 64),
)
def test_every_token_behind_the_cached_ones_is_computed_once_and_in_order_and_as_its_flag_says(
    recipe: Recipe, requests: list[tuple[bytes, int, int, int]], prefill_chunk: int
):
    limits = BatchLimits(n_batch=64, prefill_chunk=prefill_chunk, recipe=recipe)
    running = {
        name: admit(flags, [9000 + n for n in range(replied)], most, name=name, recipe=recipe)
        for name, (flags, replied, most, _) in enumerate(requests)
    }
    for name, (_, _, _, blocks) in enumerate(requests):
        entry = running[name]
        generated = np.frombuffer(bytes(entry.flags), np.uint8) == 1
        entry.cached = resume_point(
            generated, min(blocks * 8, len(entry.tokens)), block_tokens=8, minimum_chunk=recipe.minimum_chunk
        )
    entries = dict(running)
    computed: dict[int, list[int]] = {name: entry.tokens[: entry.cached] for name, entry in running.items()}
    turn, steps = False, 0
    while running:
        steps += 1
        assert steps < 5000, "somebody starves"
        plan = plan_batch(*rows_of(running), limits, prefill_turn=turn)
        assert not plan.empty
        for chunk in chunks_of(plan, running):
            entry = running[chunk.sequence_id]
            count = len(chunk.tokens)
            assert chunk.position == len(computed[chunk.sequence_id]) == entry.cached
            flags = bytes(entry.flags[chunk.position : chunk.position + count])
            if flags[0]:
                assert count == 1
                assert chunk.sequence_id in plan.decode
            else:
                assert not any(flags)
                start, end = segment_of(bytes(entry.flags), chunk.position)
                assert count >= recipe.minimum_chunk or count == end - start
                assert chunk.sequence_id not in plan.decode
            computed[chunk.sequence_id] += chunk.tokens
            entry.cached += count
            entry.last_served = steps
            assert (chunk.sample == SampleMode.TOKEN) == (entry.cached == len(entry.tokens))
            if chunk.sample and entry.append(7000 + entry.generated) == "length":
                del running[chunk.sequence_id]
        turn = bool(plan.decode)
    for name, (_, _, most, _) in enumerate(requests):
        entry = entries[name]
        assert entry.generated == most
        assert computed[name] == entry.tokens[:-1]  # the last one drawn ends the request and is never computed


def test_a_segment_ends_at_the_next_generated_token():
    entry = admit(b"\0\0\0\1\0", [], 10)
    remaining = []
    for entry.cached in range(6):
        remaining.append(entry.prefill_remaining)
    assert remaining == [3, 2, 1, 0, 1, 0]


def test_where_rows_do_not_depend_on_it_generated_tokens_of_earlier_turns_go_in_chunks():
    entry = admit(b"\0" * 10 + b"\1" * 10, [5] * 3, 10, recipe=FAST)
    assert entry.prefill_remaining == 23
    assert not entry.can_decode


def test_a_paused_request_still_replays_what_nothing_is_sampled_from():
    entry = admit(b"\0\0\1\1", [], 10)
    entry.cached, entry.paused = 2, True
    assert entry.can_decode
    entry.cached = 3
    assert not entry.can_decode


def test_the_opening_tells_the_sampler_where_the_reply_stands():
    sampling = SamplingParameters(seed=1, repeat_penalty=1.1, repeat_last_n=-1)
    message = Admit(
        request=NOBODY,
        lease=Lease(3, 2),
        prompt=[1, 2, 3],
        sampling=sampling,
        max_tokens=10,
        end_tokens=frozenset(),
        priority=0,
        hooked=False,
        reply=[8, 9],
        sampler_state=b"mu",
    )
    opening = Running.admitted(message, 0, CANONICAL).opening()
    assert (opening.history, opening.generated, opening.sampler_state) == ([1, 2, 3, 8, 9], 2, b"mu")


def test_a_grammar_needs_all_generated_tokens_however_short_the_windows() -> None:
    tokens = list(range(100, 150))
    assert sampler_history(SamplingParameters(regex="a", seed=0), tokens, 30) == tokens[-30:]
    assert sampler_history(SamplingParameters(regex="a", seed=0), tokens, 0) == []
    wider = SamplingParameters(regex="a", seed=0, repeat_penalty=1.1, repeat_last_n=40)
    assert sampler_history(wider, tokens, 30) == tokens[-40:]
