"""Every sampler: equal to llama.cpp's own, independent of where it is taken up, and harmless whatever it is fed."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from decoding import resume, run
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.errors import InvalidParameter
from paddock.native import library
from paddock.native.context import Context
from paddock.native.model import NativeModel
from paddock.native.sampler_chain import SamplerLibrary, SequenceSampler
from paddock.sampling import SAMPLERS, STREAM_DRAW, STREAM_XTC, SamplingParameters, step_seed

Row = npt.NDArray[np.float32]
N_CTX = 512

EVERY_SAMPLER: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "default": {},
    "temperature alone": {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "temperature": 1.3},
    "neutral temperature": {"temperature": 1.0},
    "top_k": {"top_k": 5},
    "large top_k": {"top_k": 500, "top_p": 1.0, "min_p": 0.0},
    "top_p alone": {"top_k": 0, "min_p": 0.0, "top_p": 0.7},
    "min_p alone": {"top_k": 0, "min_p": 0.2, "top_p": 1.0},
    "min_keep": {"min_keep": 3, "min_p": 0.9, "top_p": 0.1},
    "typical_p": {"typical_p": 0.4},
    "top_n_sigma": {"top_n_sigma": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0},
    "xtc": {"xtc_probability": 0.5, "xtc_threshold": 0.05, "temperature": 1.2},
    "penalties": {"repeat_penalty": 1.3, "frequency_penalty": 0.2, "presence_penalty": 0.1},
    "penalties, whole context": {"repeat_penalty": 1.3, "repeat_last_n": -1},
    "penalties, short window": {"presence_penalty": 1.0, "repeat_last_n": 4},
    "dry": {"dry_multiplier": 2.0, "dry_allowed_length": 1},
    "dry without breakers": {"dry_multiplier": 2.0, "dry_allowed_length": 0, "dry_sequence_breakers": []},
    "logit_bias": {"logit_bias": {300: 3.0, 301: -math.inf, 400: -1.5}},
    "another order": {"sampler_order": ("temperature", "top_p", "penalties", "xtc", "top_k"), "xtc_probability": 0.5,
                      "repeat_penalty": 1.4},
    "no order": {"sampler_order": ()},
    "everything": {"repeat_penalty": 1.2, "dry_multiplier": 1.0, "top_n_sigma": 3.0, "typical_p": 0.9,
                   "xtc_probability": 0.3, "logit_bias": {5: -math.inf}, "min_keep": 2},
    "greedy with xtc": {"temperature": 0, "xtc_probability": 0.5, "xtc_threshold": 0.01},
    "greedy with penalties": {"temperature": 0, "repeat_penalty": 1.3},
    "mirostat": {"mirostat": 2, "mirostat_tau": 4.0, "mirostat_eta": 0.3},
    "mirostat with penalties": {"mirostat": 2, "repeat_penalty": 1.3, "temperature": 1.2},
    "adaptive_p": {"adaptive_target": 0.3, "adaptive_decay": 0.7},
    "min_tokens": {"min_tokens": 6, "stop_token_ids": (300, 301)},
    "ignore_eos": {"ignore_eos": True},
}  # fmt: skip


def parameters(name: str, seed: int = 42) -> SamplingParameters:
    return SamplingParameters(seed=seed, **EVERY_SAMPLER[name])


@pytest.fixture(scope="module")
def shared(model: NativeModel) -> Iterator[SamplerLibrary]:
    made = SamplerLibrary(library.load(), model, N_CTX)
    yield made
    made.free()


def rows_of(seed: int, count: int, n_vocab: int = 2048, spread: float = 3.0) -> list[Row]:
    random = np.random.default_rng(seed)
    return [random.standard_normal(n_vocab, dtype=np.float32) * np.float32(spread) for _ in range(count)]


# --- against llama.cpp's own -----------------------------------------------------------------------------


class Reference:
    """llama.cpp's samplers, each called for itself as its server does, with the seeds of the step."""

    def __init__(self, model: NativeModel, p: SamplingParameters, history: Sequence[int]) -> None:
        self.lib: Any = library.load()
        self.model, self.p, self.t = model, p, 0
        self.kept: dict[str, Any] = {}
        lib = self.lib
        window = N_CTX if p.repeat_last_n < 0 else p.repeat_last_n
        if p.penalizes:
            self.kept["penalties"] = lib.llama_sampler_init_penalties(
                model.n_vocab, window, p.repeat_penalty, p.frequency_penalty, p.presence_penalty
            )
        if p.dry_multiplier:
            breakers = [text.encode() for text in p.dry_sequence_breakers]
            array = (ctypes.c_char_p * max(len(breakers), 1))(*breakers)
            self.kept["dry"] = lib.llama_sampler_init_dry(
                model.vocabulary, p.dry_multiplier, p.dry_base, p.dry_allowed_length, N_CTX, array, len(breakers)
            )
        if p.mirostat:
            self.kept["mirostat"] = lib.llama_sampler_init_mirostat_v2(0, p.mirostat_tau, p.mirostat_eta)
        for token in history:
            self.accept(token)

    def accept(self, token: int) -> None:
        for sampler in self.kept.values():
            self.lib.llama_sampler_accept(sampler, token)

    def sample(self, row: Row) -> int:
        lib, p = self.lib, self.p
        data = (lib.llama_token_data * len(row))()
        for token, logit in enumerate(row.tolist()):
            data[token].id, data[token].logit = token, logit
        for token, bias in p.logit_bias:
            data[token].logit += bias
        array = lib.llama_token_data_array(ctypes.cast(data, ctypes.POINTER(lib.llama_token_data)), len(row), -1, False)

        def once(sampler: Any) -> None:
            lib.llama_sampler_apply(sampler, ctypes.byref(array))
            lib.llama_sampler_free(sampler)

        for name in ("penalties", "dry", "temperature") if p.mirostat else p.sampler_order:
            match name:
                case "penalties" | "dry":
                    if name in self.kept:
                        lib.llama_sampler_apply(self.kept[name], ctypes.byref(array))
                case "top_n_sigma":
                    once(lib.llama_sampler_init_top_n_sigma(p.top_n_sigma))
                case "top_k":
                    once(lib.llama_sampler_init_top_k(p.top_k))
                case "typical_p":
                    once(lib.llama_sampler_init_typical(p.typical_p, p.min_keep))
                case "top_p":
                    once(lib.llama_sampler_init_top_p(p.top_p, p.min_keep))
                case "min_p":
                    once(lib.llama_sampler_init_min_p(p.min_p, p.min_keep))
                case "xtc":
                    seed = step_seed(p.seed or 0, 0, self.t, STREAM_XTC)
                    once(lib.llama_sampler_init_xtc(p.xtc_probability, p.xtc_threshold, p.min_keep, seed))
                case "temperature":
                    once(lib.llama_sampler_init_temp(p.temperature))
        seed = step_seed(p.seed or 0, 0, self.t, STREAM_DRAW)
        once(lib.llama_sampler_init_dist(seed))
        token = int(array.data[array.selected].id)
        self.accept(token)
        self.t += 1
        return token

    def free(self) -> None:
        for sampler in self.kept.values():
            self.lib.llama_sampler_free(sampler)


COMPARABLE = sorted(
    name
    for name, options in EVERY_SAMPLER.items()
    if not {"mirostat", "adaptive_target", "min_tokens", "ignore_eos"} & options.keys() and name != "everything"
)


@pytest.mark.parametrize("name", COMPARABLE)
def test_a_chain_draws_what_llama_cpps_own_samplers_draw(model: NativeModel, shared: SamplerLibrary, name: str) -> None:
    history = [300, 301, 302, 300, 301, 302, 300, 15, 300, 301] * 3
    # Few distinct tokens with high logits, so that penalties and DRY have something to act on.
    rows = rows_of(7, 40)
    for row in rows:
        row[300:310] += 6.0
    p = parameters(name)
    ours = SequenceSampler(shared, p, history=history)
    theirs = Reference(model, p, history)
    assert [ours.sample(row).token for row in rows] == [theirs.sample(row) for row in rows]
    ours.free()
    theirs.free()


def test_mirostat_keeps_the_mu_that_llama_cpp_keeps(model: NativeModel, shared: SamplerLibrary) -> None:
    """With the same draws, the same mu: checked by the truncation that it causes, and by the formula."""
    p = SamplingParameters(seed=1, mirostat=2, mirostat_tau=3.0, mirostat_eta=0.2, temperature=1.0)
    ours = SequenceSampler(shared, p)
    mu = np.float32(6.0)
    for row in rows_of(3, 60):
        draw = ours.sample(row)
        order = np.argsort(-row, kind="stable")
        probabilities = np.exp(row[order].astype(np.float64) - row.max())
        probabilities /= probabilities.sum()
        kept = max(int((-np.log2(probabilities) <= mu).sum()), 1)
        assert draw.token in order[:kept]
        chosen = probabilities[: len(order)][order.tolist().index(draw.token)] / probabilities[:kept].sum()
        mu = np.float32(mu - np.float32(0.2) * np.float32(-math.log2(chosen) - 3.0))
        assert float(np.frombuffer(ours.state, np.float32)[0]) == pytest.approx(float(mu), abs=1e-4)
    ours.free()


def test_adaptive_p_keeps_the_sums_of_llama_cpps_own_sampler(shared: SamplerLibrary) -> None:
    """llama.cpp's sampler, driven with our tokens, aims where ours aims: compared by its transformed logits."""
    p = SamplingParameters(seed=1, adaptive_target=0.4, adaptive_decay=0.8, top_p=1.0, min_p=0.0, temperature=1.0)
    ours = SequenceSampler(shared, p)
    weighted, total = 0.4 / (1 - 0.8), 1 / (1 - 0.8)
    for row in rows_of(4, 50):
        draw = ours.sample(row)
        top = np.argsort(-row, kind="stable")[:40]
        probabilities = np.exp(row[top].astype(np.float64) - row.max())
        probabilities /= probabilities.sum()
        met = probabilities[top.tolist().index(draw.token)]
        weighted, total = met + 0.8 * weighted, 1 + 0.8 * total
        assert np.frombuffer(ours.state, np.float32).tolist() == pytest.approx([weighted, total], rel=1e-4)
    # The mean of the probabilities met comes near the target, which is what the sampler is for.
    assert 0.2 < weighted / total < 0.6
    ours.free()


# --- taken up elsewhere ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY_SAMPLER)
@pytest.mark.parametrize("cut", [1, 9])
def test_a_sequence_cut_anywhere_goes_on_elsewhere_with_the_same_tokens(
    make_context: Callable[..., Context], name: str, cut: int
) -> None:
    sampling = SamplingParameters(**{"seed": 9, "logprobs": 1} | EVERY_SAMPLER[name])
    whole = run(make_context(n_seq_max=2), sampling, 14)
    rest = resume(make_context(n_seq_max=4), sampling, whole[:cut], 14 - cut, sequence_id=3)
    assert [(one.token, one.logprob, one.top, one.sampler_state) for one in rest] == [
        (one.token, one.logprob, one.top, one.sampler_state) for one in whole[cut:]
    ]


@pytest.mark.parametrize("name", EVERY_SAMPLER)
def test_samplers_of_neighbours_do_not_touch_each_other(shared: SamplerLibrary, name: str) -> None:
    rows = rows_of(5, 20)
    alone = SequenceSampler(shared, parameters(name))
    expected = [alone.sample(row).token for row in rows]
    alone.free()
    together = {other: SequenceSampler(shared, parameters(other, seed=1)) for other in EVERY_SAMPLER}
    together[name] = SequenceSampler(shared, parameters(name))
    got = []
    for row in rows:
        for other, sampler in together.items():
            token = sampler.sample(row).token
            if other == name:
                got.append(token)
    assert got == expected
    for sampler in together.values():
        sampler.free()


def test_seed_and_choice_change_the_draws(shared: SamplerLibrary) -> None:
    rows = rows_of(6, 30)

    def draw(seed: int, choice: int) -> tuple[int, ...]:
        sampler = SequenceSampler(shared, SamplingParameters(seed=seed), choice=choice)
        tokens = tuple(sampler.sample(row).token for row in rows)
        sampler.free()
        return tokens

    assert draw(1, 0) == draw(1, 0)
    assert len({draw(1, 0), draw(2, 0), draw(1, 1), draw(2**64 - 1, 0)}) == 4


def test_draws_follow_the_distribution(shared: SamplerLibrary) -> None:
    row = np.full(2048, -np.inf, np.float32)
    row[10:13] = np.log([0.5, 0.3, 0.2])
    p = SamplingParameters(seed=3, top_k=0, top_p=1.0, min_p=0.0, temperature=1.0)
    sampler = SequenceSampler(shared, p)
    tokens = [sampler.sample(row).token for _ in range(4000)]
    shares = [tokens.count(token) / 4000 for token in (10, 11, 12)]
    assert shares == pytest.approx([0.5, 0.3, 0.2], abs=0.03)
    sampler.free()


# --- parameters that act outside llama.cpp's samplers -----------------------------------------------------


def test_greedy_takes_the_highest_biased_logit(shared: SamplerLibrary) -> None:
    row = rows_of(1, 1)[0]
    order = np.argsort(-row).tolist()
    first, second, third = order[:3]
    p = SamplingParameters(seed=0, temperature=0, logit_bias={first: -math.inf, third: 100.0})
    assert SequenceSampler(shared, SamplingParameters(seed=0, temperature=0)).sample(row).token == first
    assert SequenceSampler(shared, p).sample(row).token == third
    p = SamplingParameters(seed=0, temperature=0, presence_penalty=100.0)
    sampler = SequenceSampler(shared, p, history=[first, third])
    assert [sampler.sample(row).token for _ in range(3)] == [second, *order[3:5]]


def test_min_tokens_and_ignore_eos_hold_back_ends(shared: SamplerLibrary) -> None:
    row = np.zeros(2048, np.float32)
    row[2], row[4], row[77], row[78] = 9.0, 8.0, 7.0, 6.0
    p = SamplingParameters(seed=0, temperature=0, min_tokens=2, stop_token_ids=(77,))
    sampler = SequenceSampler(shared, p)
    assert [sampler.sample(row).token for _ in range(3)] == [78, 78, 2]
    late = SequenceSampler(shared, p, generated=1)
    assert [late.sample(row).token for _ in range(2)] == [78, 2]
    never = SequenceSampler(shared, SamplingParameters(seed=0, temperature=0, ignore_eos=True))
    assert [never.sample(row).token for _ in range(3)] == [77, 77, 77]


def test_a_row_with_nothing_left_to_draw_is_an_error_and_changes_nothing(shared: SamplerLibrary) -> None:
    row = np.full(2048, -np.inf, np.float32)
    row[2] = 1.0
    for options in EVERY_SAMPLER.values():
        if "min_tokens" in options or "ignore_eos" in options:
            continue
        sampler = SequenceSampler(shared, SamplingParameters(seed=0, min_tokens=1, **options))
        before = sampler.state
        assert sampler.sample(row).error
        assert (sampler.generated, sampler.state) == (0, before)
        other = row.copy()
        other[50] = -3.0
        assert sampler.sample(other).token == 50
        assert sampler.sample(row).token == 2
        sampler.free()


def test_suppressed_tokens_of_the_model_are_never_drawn(model: NativeModel) -> None:
    class Suppressing:
        n_vocab = model.n_vocab
        vocabulary = model.vocabulary
        suppressed_tokens = (7, 8)
        eog_ids = model.eog_ids
        grammars = model.grammars

    shared = SamplerLibrary(library.load(), Suppressing(), N_CTX)
    row = np.zeros(2048, np.float32)
    row[7], row[8], row[9] = 30.0, 29.0, 28.0
    assert SequenceSampler(shared, SamplingParameters(seed=0, temperature=0)).sample(row).token == 9
    assert SequenceSampler(shared, SamplingParameters(seed=0)).sample(row).token == 9
    shared.free()


def test_typical_p_works_with_impossible_candidates(shared: SamplerLibrary) -> None:
    """llama.cpp's own sampler takes log(0) for these and keeps an arbitrary choice."""
    row = np.full(2048, -np.inf, np.float32)
    row[100:104] = np.log([0.4, 0.3, 0.2, 0.1])
    p = SamplingParameters(seed=0, typical_p=0.3, top_k=0, temperature=1.0, top_p=1.0, min_p=0.0)
    sampler = SequenceSampler(shared, p)
    # the entropy is 1.28 nats; the token of probability 0.3 (1.20 nats) is the most typical and alone reaches 0.3
    assert {sampler.sample(row).token for _ in range(20)} <= {101, 102}
    sampler.free()


def test_dry_tables_are_shared_and_bounded(shared: SamplerLibrary) -> None:
    samplers = [SequenceSampler(shared, SamplingParameters(seed=0, dry_multiplier=1.0 + index)) for index in range(20)]
    assert len(shared._dry) <= 16
    for sampler in samplers:
        assert sampler.sample(rows_of(1, 1)[0]).error is None
        sampler.free()


# --- whatever it is fed --------------------------------------------------------------------------------------

number = st.floats(width=32) | st.sampled_from([0.0, -0.0, 3e38, -3e38, 1e-45, 88.0, -104.0])
choices = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0, 1e-5, 0.5, 1.0, 100.0]),
        "top_k": st.sampled_from([0, 1, 2, 100, 2**31 - 1]),
        "top_p": st.sampled_from([0.0, 1e-30, 0.5, 1.0]),
        "min_p": st.sampled_from([0.0, 1e-45, 0.5, 1.0]),
        "typical_p": st.sampled_from([1e-45, 0.5, 1.0]),
        "top_n_sigma": st.sampled_from([-1.0, 1e-6, 1.0, 1000.0]),
        "min_keep": st.sampled_from([0, 1, 5, 2**31 - 1]),
        "xtc_probability": st.sampled_from([0.0, 0.5, 1.0]),
        "xtc_threshold": st.sampled_from([0.0, 0.1, 0.5, 1.0]),
        "dry_multiplier": st.sampled_from([0.0, 1.0, 100.0]),
        "dry_base": st.sampled_from([1.0, 1.75, 100.0]),
        "dry_allowed_length": st.sampled_from([0, 1, 1_000_000]),
        "dry_last_n": st.sampled_from([-1, 0, 1, 2**31 - 1]),
        "dry_sequence_breakers": st.lists(st.text(min_size=1, max_size=10), max_size=4),
        "repeat_last_n": st.sampled_from([-1, 0, 1, 2**31 - 1]),
        "repeat_penalty": st.sampled_from([0.01, 1.0, 1.5, 100.0]),
        "frequency_penalty": st.sampled_from([-100.0, 0.0, 100.0]),
        "presence_penalty": st.sampled_from([-100.0, 0.0, 100.0]),
        "mirostat": st.sampled_from([0, 2]),
        "mirostat_tau": st.sampled_from([0.0, 5.0, 100.0]),
        "mirostat_eta": st.sampled_from([0.0, 0.1, 1.0]),
        "adaptive_target": st.sampled_from([-1.0, 0.0, 0.5, 1.0]),
        "adaptive_decay": st.sampled_from([0.0, 0.9, 0.99]),
        "logit_bias": st.dictionaries(st.integers(0, 2047), st.sampled_from([-math.inf, -1e4, 1e4]), max_size=4),
        "ignore_eos": st.booleans(),
        "min_tokens": st.integers(0, 2),
        "sampler_order": st.permutations(SAMPLERS).flatmap(
            lambda order: st.integers(0, len(order)).map(lambda count: order[:count])
        ),
        "logprobs": st.sampled_from([None, 0, 20]),
    },
)


@settings(max_examples=150, deadline=None)
@given(choices, st.lists(number, min_size=1, max_size=40), st.lists(st.integers(0, 2047), max_size=30), st.booleans())
def test_no_parameters_and_no_logits_end_the_process(
    shared: SamplerLibrary, given: dict[str, Any], values: list[float], history: list[int], sparse: bool
) -> None:
    try:
        p = SamplingParameters(seed=1, **given)
    except InvalidParameter:
        return
    row = np.full(2048, -np.inf if sparse else 0.0, np.float32)
    row[: len(values)] = values
    sampler = SequenceSampler(shared, p, history=history)
    for _ in range(4):
        draw = sampler.sample(row)
        assert (draw.error is None) == (0 <= draw.token < 2048)
    sampler.free()
