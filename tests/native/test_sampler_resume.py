"""Parameters, seed, history, count and the few bytes of state are a sampler's whole state: cut anywhere, however often,
and rebuilt elsewhere from them alone, it draws what it would have drawn. Real llama.cpp, every sampler of the chain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from decoding import PROMPT, resume, run
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.engine.batching.running import sampler_history
from paddock.errors import InvalidParameter
from paddock.native import library
from paddock.native.context import Context
from paddock.native.model import NativeModel
from paddock.native.sampler_chain import Draw, SamplerLibrary, SequenceSampler
from paddock.sampling import SAMPLERS, SamplingParameters

Row = npt.NDArray[np.float32]
N_CTX = 512
N_VOCAB = 2048

windows = st.sampled_from([-1, 1, 3, 16, 64, 2**31 - 1])
chains = st.fixed_dictionaries(
    {"seed": st.integers(0, 2**64 - 1)},
    optional={
        "temperature": st.sampled_from([0.0, 0.3, 1.0, 2.5]),
        "top_k": st.sampled_from([0, 1, 40, 300]),
        "top_p": st.floats(0.3, 1.0),
        "min_p": st.floats(0.0, 0.2),
        "typical_p": st.sampled_from([0.3, 0.9, 1.0]),
        "top_n_sigma": st.sampled_from([-1.0, 1.0, 2.5]),
        "min_keep": st.integers(0, 4),
        "xtc_probability": st.sampled_from([0.0, 0.5, 1.0]),
        "xtc_threshold": st.floats(0.0, 0.5),
        "dry_multiplier": st.sampled_from([0.0, 0.8, 5.0]),
        "dry_base": st.sampled_from([1.1, 1.75]),
        "dry_allowed_length": st.integers(0, 3),
        "dry_last_n": windows,
        "dry_sequence_breakers": st.lists(st.sampled_from(["\n", ":", "e", "ta"]), max_size=3, unique=True),
        "repeat_penalty": st.floats(0.8, 1.5),
        "frequency_penalty": st.floats(-1.0, 1.0),
        "presence_penalty": st.floats(-1.0, 1.0),
        "repeat_last_n": windows,
        "min_tokens": st.integers(0, 12),
        "ignore_eos": st.booleans(),
        "logit_bias": st.dictionaries(st.integers(0, N_VOCAB - 1), st.floats(-20.0, 5.0), max_size=4),
        "sampler_order": st.permutations(SAMPLERS),
        "logprobs": st.sampled_from([None, 0, 3]),
    },
)
endings = st.sampled_from(["draw", "draw", "mirostat", "adaptive"]).flatmap(
    lambda kind: st.fixed_dictionaries(
        {
            "draw": {},
            "mirostat": {
                "mirostat": st.just(2),
                "mirostat_tau": st.floats(1.0, 8.0),
                "mirostat_eta": st.floats(0.0, 1.0),
            },
            "adaptive": {"adaptive_target": st.floats(0.0, 1.0), "adaptive_decay": st.floats(0.0, 0.99)},
        }[kind]
    )
)


def made(chain: dict[str, Any], ending: dict[str, Any]) -> SamplingParameters | None:
    """None for parameters that exclude each other."""
    try:
        return SamplingParameters(**chain, **ending)
    except InvalidParameter:
        return None


@pytest.fixture(scope="module")
def libraries(model: NativeModel) -> Iterator[tuple[SamplerLibrary, SamplerLibrary]]:
    """As two contexts have them."""
    both = SamplerLibrary(library.load(), model, N_CTX), SamplerLibrary(library.load(), model, N_CTX)
    yield both
    for one in both:
        one.free()


def rows_of(seed: int, count: int) -> list[Row]:
    """With few tokens that stand out, so that repetitions come."""
    draw = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        row = draw.standard_normal(N_VOCAB, dtype=np.float32)
        row[draw.integers(300, 310, 4)] += np.float32(6.0)
        rows.append(row)
    return rows


def seen(draw: Draw, sampler: SequenceSampler) -> tuple[object, ...]:
    return draw.token, draw.logprob, draw.top, draw.error, sampler.state


def drawn(sampler: SequenceSampler, rows: list[Row]) -> list[tuple[object, ...]]:
    return [seen(sampler.sample(row), sampler) for row in rows]


@settings(max_examples=120, deadline=None)
@given(
    chain=chains,
    ending=endings,
    history=st.lists(st.integers(300, 310), max_size=30),
    cuts=st.sets(st.integers(1, 15)),
    choice=st.integers(0, 3),
    seed=st.integers(0, 1000),
    trimmed=st.booleans(),
)
def test_rebuilt_at_any_steps_it_draws_the_same_tokens(
    libraries: tuple[SamplerLibrary, SamplerLibrary],
    chain: dict[str, Any],
    ending: dict[str, Any],
    history: list[int],
    cuts: set[int],
    choice: int,
    seed: int,
    trimmed: bool,
) -> None:
    sampling = made(chain, ending)
    if sampling is None:
        return
    here, there = libraries
    rows = rows_of(seed, 16)
    sampler = SequenceSampler(here, sampling, choice=choice, history=history)
    expected = drawn(sampler, rows)
    sampler.free()
    tokens = list(history)
    sampler = SequenceSampler(here, sampling, choice=choice, history=history)
    got: list[tuple[object, ...]] = []
    for step, row in enumerate(rows):
        if step in cuts:
            state, generated = sampler.state, sampler.generated
            sampler.free()
            # The engine sends no more of a long history than the samplers look back on.
            known = sampler_history(sampling, tokens) if trimmed else tokens
            sampler = SequenceSampler(
                there if step % 2 else here, sampling, choice=choice, history=known, generated=generated, state=state
            )
        draw = sampler.sample(row)
        got.append(seen(draw, sampler))
        if draw.error is None:
            tokens.append(draw.token)
    sampler.free()
    assert got == expected


@settings(max_examples=20, deadline=None)
@given(chain=chains, ending=endings, cut=st.integers(1, 11), sequence_id=st.integers(0, 3))
def test_a_sequence_cut_anywhere_goes_on_in_another_context_and_sequence(
    contexts: tuple[Context, Context], chain: dict[str, Any], ending: dict[str, Any], cut: int, sequence_id: int
) -> None:
    sampling = made(chain, ending)
    if sampling is None:
        return
    here, there = contexts
    whole = run(here, sampling, 12, prompt=PROMPT)
    rest = resume(there, sampling, whole[:cut], 12 - cut, sequence_id=sequence_id, prompt=PROMPT)
    assert [(one.token, one.logprob, one.top, one.sampler_state) for one in rest] == [
        (one.token, one.logprob, one.top, one.sampler_state) for one in whole[cut:]
    ]
