"""Sampling parameters are honoured or refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from paddock.errors import InvalidParameter
from paddock.sampling import PARAMETERS, SAMPLERS, SamplingParameters, validate_for_vocabulary

NAMES = [field.name for field in attrs.fields(SamplingParameters)]
NAN, INF = math.nan, math.inf


def test_the_defaults_are_those_of_llama_cpp() -> None:
    p = SamplingParameters()
    assert (p.temperature, p.top_k, p.top_p, p.min_p, p.typical_p) == (0.8, 40, 0.95, 0.05, 1.0)
    assert (p.repeat_penalty, p.repeat_last_n, p.frequency_penalty, p.presence_penalty) == (1.0, 64, 0.0, 0.0)
    assert p.sampler_order == SAMPLERS
    assert p.seed is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", NAN), ("temperature", INF), ("temperature", -0.1), ("temperature", 1e-9), ("temperature", 101),
        ("temperature", "0.5"), ("temperature", True), ("temperature", None), ("temperature", 10**400),
        ("top_k", -1), ("top_k", 1.5), ("top_k", True), ("top_k", 2**31),
        ("top_p", 2), ("top_p", -0.01), ("top_p", NAN),
        ("min_p", 1.1), ("min_p", -1),
        ("typical_p", 0.0), ("typical_p", 1.01),
        ("top_n_sigma", 0.0), ("top_n_sigma", -2.0), ("top_n_sigma", INF),
        ("min_keep", -1),
        ("xtc_probability", 1.5), ("xtc_threshold", -0.5),
        ("dry_multiplier", -1), ("dry_base", 0.99), ("dry_allowed_length", -1), ("dry_last_n", -2),
        ("dry_sequence_breakers", [""]), ("dry_sequence_breakers", ["x" * 41]), ("dry_sequence_breakers", ["é" * 21]),
        ("dry_sequence_breakers", ["a\0b"]), ("dry_sequence_breakers", ["x"] * 65), ("dry_sequence_breakers", 3),
        ("repeat_last_n", -2), ("repeat_penalty", 0.0), ("repeat_penalty", NAN),
        ("frequency_penalty", 101), ("presence_penalty", -INF),
        ("mirostat", 1), ("mirostat", 3), ("mirostat_tau", -1), ("mirostat_eta", 1.5),
        ("adaptive_target", -0.5), ("adaptive_target", 1.5), ("adaptive_decay", 1.0),
        ("logit_bias", {1: NAN}), ("logit_bias", {1: INF}), ("logit_bias", {-1: 0.0}), ("logit_bias", {"1": 0.0}),
        ("logit_bias", {1: 1e5}), ("logit_bias", [(1, 2.0), (1, 3.0)]), ("logit_bias", [(1,)]), ("logit_bias", 3),
        ("logit_bias", "ab"), ("logit_bias", {True: 1.0}), ("logit_bias", {2**31: 1.0}), ("logit_bias", None),
        ("seed", -1), ("seed", 2**64), ("seed", 1.0), ("seed", True),
        ("ignore_eos", 1), ("min_tokens", -1),
        ("max_tokens", 0), ("max_tokens", -1), ("max_tokens", 1.0),
        ("stop", [""]), ("stop", ["x"] * 10_000), ("stop", ["x" * 1025]), ("stop", b"x"), ("stop", [1]),
        ("stop", ["\ud800"]), ("stop", None),
        ("stop_token_ids", [-1]), ("stop_token_ids", ["1"]), ("stop_token_ids", [True]), ("stop_token_ids", 5),
        ("sampler_order", ["top_k", "top_k"]), ("sampler_order", ["topk"]), ("sampler_order", "top_k"),
        ("sampler_order", [["top_k"]]), ("sampler_order", None),
        ("logprobs", 21), ("logprobs", -1), ("logprobs", True),
    ],
)  # fmt: skip
def test_a_value_outside_its_range_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidParameter) as caught:
        SamplingParameters.from_mapping({name: value})
    assert caught.value.parameter == name
    assert caught.value.allowed
    assert name in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0), ("temperature", 1e-5), ("temperature", 100), ("top_k", 0), ("top_p", 0), ("top_p", 1),
        ("min_p", 0.0), ("min_p", 1.0), ("typical_p", 1.0), ("top_n_sigma", -1.0), ("top_n_sigma", 0.1),
        ("xtc_threshold", 0.9), ("dry_last_n", 0), ("repeat_last_n", -1), ("adaptive_target", -1.0),
        ("adaptive_target", 0.0), ("seed", 0), ("seed", 2**64 - 1), ("max_tokens", 1), ("logprobs", 0),
        ("logit_bias", {0: -INF}), ("logit_bias", {}), ("stop", "one"), ("stop", ["é" * 1024]), ("mirostat", 2),
        ("sampler_order", []), ("logprobs", 20),
    ],
)  # fmt: skip
def test_the_ends_of_a_range_are_honoured(name: str, value: object) -> None:
    parameters = SamplingParameters.from_mapping({name: value})
    got = getattr(parameters, name)
    if name == "stop":
        assert got == ((value,) if isinstance(value, str) else tuple(value))  # type: ignore[arg-type]
    elif name == "logit_bias":
        assert got == tuple(value.items())  # type: ignore[attr-defined]
    elif name == "sampler_order":
        assert got == ()
    else:
        assert got == value


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(InvalidParameter, match="did you mean 'temperature'") as caught:
        SamplingParameters.from_mapping({"temprature": 1.0})
    assert caught.value.parameter == "temprature"
    with pytest.raises(InvalidParameter, match="no such parameter"):
        SamplingParameters.from_mapping({"zzzzzz": 1.0})


def test_values_are_normalised_to_one_form() -> None:
    p = SamplingParameters(stop="end", logit_bias={9: 1, 3: -2}, stop_token_ids=[5, 2, 5], temperature=1)
    assert p.stop == ("end",)
    assert p.logit_bias == ((3, -2.0), (9, 1.0))
    assert p.stop_token_ids == (2, 5)
    assert isinstance(p.temperature, float)
    assert hash(p) == hash(SamplingParameters.from_mapping(p.to_mapping()))


@pytest.mark.parametrize(
    "parameters",
    [
        {"mirostat": 2, "xtc_probability": 0.5},
        {"mirostat": 2, "typical_p": 0.5},
        {"mirostat": 2, "top_n_sigma": 1.0},
        {"mirostat": 2, "adaptive_target": 0.5},
        {"sampler_order": ["top_k"], "repeat_penalty": 1.1},
        {"sampler_order": ["top_k"], "dry_multiplier": 0.8},
        {"sampler_order": ["top_k"], "xtc_probability": 0.8},
        {"sampler_order": ["top_k"], "typical_p": 0.8},
        {"sampler_order": ["top_k"], "top_n_sigma": 0.8},
        {"min_tokens": 5, "max_tokens": 4},
    ],
)
def test_a_parameter_that_could_have_no_effect_is_refused(parameters: Mapping[str, Any]) -> None:
    with pytest.raises(InvalidParameter):
        SamplingParameters.from_mapping(parameters)


def test_token_ids_outside_the_vocabulary_are_refused() -> None:
    validate_for_vocabulary(SamplingParameters(logit_bias={99: 1.0}, stop_token_ids=(99,)), 100)
    with pytest.raises(InvalidParameter, match="logit_bias=100"):
        validate_for_vocabulary(SamplingParameters(logit_bias={100: 1.0}), 100)
    with pytest.raises(InvalidParameter, match="stop_token_ids=100"):
        validate_for_vocabulary(SamplingParameters(stop_token_ids=(100,)), 100)
    with pytest.raises(InvalidParameter, match="not banned"):
        validate_for_vocabulary(SamplingParameters(logit_bias={0: -INF, 1: -INF}), 2)


def test_the_parameter_table_names_every_field_and_states_its_range() -> None:
    assert [row.name for row in PARAMETERS] == NAMES
    for row in PARAMETERS:
        assert row.range
        assert row.meaning
        assert row.default == getattr(SamplingParameters(), row.name)


def test_an_absent_seed_is_drawn_once() -> None:
    p = SamplingParameters()
    resolved = p.resolved()
    assert resolved.seed is not None
    assert resolved.resolved() is resolved
    assert p.resolved().seed != resolved.seed or p.resolved().seed != resolved.seed
    assert SamplingParameters(seed=7).resolved().seed == 7


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.integers() | st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(NAMES), anything, max_size=4))
@example({"logit_bias": {1: [2]}})
@example({"stop_token_ids": [10**400]})
@example({"dry_sequence_breakers": ["\ud800"]})
def test_any_value_is_honoured_as_given_or_refused(parameters: dict[str, object]) -> None:
    try:
        accepted = SamplingParameters.from_mapping(parameters)
    except InvalidParameter as error:
        refused = error
        assert refused.parameter in NAMES
        return
    for name, value in parameters.items():
        got = getattr(accepted, name)
        if isinstance(value, bool | int | float | None):
            assert got == value
    assert SamplingParameters.from_mapping(accepted.to_mapping()) == accepted
