"""A grammar's state is the tokens generated: cut anywhere, rebuilt elsewhere from history and count, it allows and
draws what it would have. Real llama.cpp and llguidance, with every other sampler of the chain."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from decoding import PROMPT, step
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sampler_resume import N_CTX, chains, endings, made, rows_of, seen

from paddock.engine.batching.running import sampler_history
from paddock.errors import InvalidParameter
from paddock.native import library
from paddock.native.batch import Chunk, Sampled
from paddock.native.context import Context
from paddock.native.model import NativeModel
from paddock.native.sampler_chain import SamplerLibrary, SequenceSampler
from paddock.sampling import SamplingParameters

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "tags": {"type": "array", "items": {"enum": ["a", "bc"]}},
    },
    "required": ["name", "tags"],
    "additionalProperties": False,
}
LARK = """
start: line+
line: WORD (" " WORD)* "\\n"
WORD: /[a-z]{1,8}/
"""
grammars = st.sampled_from(
    [{"json_schema": json.dumps(SCHEMA)}, {"regex": "(ta|te|[0-9]{3}){2,6}"}, {"regex": "[^x]*"}, {"grammar": LARK}]
)


@pytest.fixture(scope="module")
def libraries(model: NativeModel) -> Iterator[tuple[SamplerLibrary, SamplerLibrary]]:
    both = SamplerLibrary(library.load(), model, N_CTX), SamplerLibrary(library.load(), model, N_CTX)
    yield both
    for one in both:
        one.free()


@settings(max_examples=60, deadline=None)
@given(
    grammar=grammars,
    chain=chains,
    ending=endings,
    history=st.lists(st.integers(300, 310), max_size=30),
    cuts=st.sets(st.integers(1, 15)),
    seed=st.integers(0, 1000),
    trimmed=st.booleans(),
)
def test_rebuilt_at_any_steps_it_draws_the_same_tokens(
    libraries: tuple[SamplerLibrary, SamplerLibrary],
    grammar: dict[str, Any],
    chain: dict[str, Any],
    ending: dict[str, Any],
    history: list[int],
    cuts: set[int],
    seed: int,
    trimmed: bool,
) -> None:
    sampling = made({**chain, **grammar, "ignore_eos": False}, ending)
    if sampling is None:
        return
    here, there = libraries
    rows = rows_of(seed, 16)
    whole = SequenceSampler(here, sampling, history=history)
    expected = [seen(whole.sample(row), whole) for row in rows]
    whole.free()
    tokens = list(history)
    sampler = SequenceSampler(here, sampling, history=history)
    got: list[tuple[object, ...]] = []
    for number, row in enumerate(rows):
        if number in cuts:
            state, generated = sampler.state, sampler.generated
            sampler.free()
            known = sampler_history(sampling, tokens, generated) if trimmed else tokens
            sampler = SequenceSampler(
                there if number % 2 else here, sampling, history=known, generated=generated, state=state
            )
        draw = sampler.sample(row)
        got.append(seen(draw, sampler))
        if draw.error is None:
            tokens.append(draw.token)
    sampler.free()
    assert got == expected


def reply(context: Context, sampling: SamplingParameters, eog: frozenset[int], so_far: list[Sampled]) -> list[Sampled]:
    """What comes after ``so_far``, up to an end-of-generation token or 40 tokens, in the context's last sequence."""
    sequence_id = context.sizes().n_seq_max - 1
    tokens = [*PROMPT, *(sampled.token for sampled in so_far)]
    state = so_far[-1].sampler_state if so_far else b""
    context.open_sequence(sequence_id, 1, sampling, history=tokens, generated=len(so_far), sampler_state=state)
    for number, token in enumerate(tokens[:-1]):
        (nothing,) = [context.decode_and_sample_batch([Chunk(sequence_id, 1, number, [token])])]
        assert nothing == []
    sampled = [step(context, sequence_id, 1, tokens[-1:])]
    while sampled[-1].token not in eog and len(so_far) + len(sampled) < 40:
        sampled.append(step(context, sequence_id, 1, [sampled[-1].token]))
    context.release_sequence(sequence_id, 1)
    return sampled


@settings(max_examples=24, deadline=None)
@given(
    grammar=grammars,
    samplers=st.sampled_from(
        [
            {"temperature": 0.0},
            {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0},
            {"temperature": 1.0, "repeat_penalty": 1.3, "repeat_last_n": -1, "dry_multiplier": 0.8},
            {"temperature": 0.0, "presence_penalty": 0.7, "dry_multiplier": 2.0, "dry_allowed_length": 1},
            {"mirostat": 2},
        ]
    ),
    seed=st.integers(0, 1000),
    part=st.floats(0.0, 1.0),
)
def test_a_sequence_cut_anywhere_goes_on_in_another_context_and_sequence(
    contexts: tuple[Context, Context],
    model: NativeModel,
    grammar: dict[str, Any],
    samplers: dict[str, Any],
    seed: int,
    part: float,
) -> None:
    sampling = SamplingParameters(seed=seed, logprobs=1, **grammar, **samplers)
    eog = model.special_tokens.eog
    here, there = contexts
    whole = reply(here, sampling, eog, [])
    cut = int(part * (len(whole) - 1))
    rest = reply(there, sampling, eog, whole[:cut])
    assert [(one.token, one.logprob, one.top, one.sampler_state) for one in rest] == [
        (one.token, one.logprob, one.top, one.sampler_state) for one in whole[cut:]
    ]


def test_a_history_without_the_generated_tokens_is_refused(context: Context) -> None:
    sampling = SamplingParameters(seed=1, regex="[a-z]*")
    with pytest.raises(InvalidParameter, match="generated tokens"):
        context.open_sequence(0, 1, sampling, history=[300, 301], generated=3)


def test_tokens_that_do_not_match_the_grammar_end_the_row_alone(context: Context) -> None:
    sampling = SamplingParameters(seed=1, regex="[0-9]{4}")
    context.open_sequence(0, 1, sampling, history=[300, 301], generated=2)
    (sampled,) = context.decode_and_sample_batch([Chunk(0, 1, 0, [300, 301], 1)])
    assert sampled.token == -1
    assert sampled.error is not None
    assert "do not match" in sampled.error
