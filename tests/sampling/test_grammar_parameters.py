"""What is checked of a grammar without a model: type, size, JSON, combinations."""

from __future__ import annotations

import json
from typing import Any

import pytest

from paddock.errors import InvalidParameter
from paddock.sampling import SamplingParameters
from paddock.sampling.grammars import MAX_GRAMMAR_BYTES, Grammar


def test_a_schema_given_as_a_mapping_is_kept_as_text_with_its_keys_in_order() -> None:
    schema = {"type": "object", "properties": {"b": {"const": "é"}, "a": {"type": "null"}}}
    sampling = SamplingParameters(json_schema=schema)
    assert sampling.json_schema == json.dumps(schema, ensure_ascii=False)
    assert SamplingParameters.from_mapping(sampling.to_mapping()) == sampling
    assert sampling.constraint == Grammar("json_schema", json.dumps(schema, ensure_ascii=False))


def test_without_a_grammar_there_is_no_constraint() -> None:
    assert SamplingParameters().constraint is None


@pytest.mark.parametrize(
    "schema",
    [
        "", "true", "[]", "{", "{} {}", '{"const": NaN}', 7, True, [], b"{}", "\ud800", {"const": float("nan")},
        {"const": object()}, {1j: 2}, '{"items":' * 5000 + "{}" + "}" * 5000, {"enum": ["x" * MAX_GRAMMAR_BYTES]},
    ],
    ids=lambda value: str(value)[:12].encode("ascii", "replace").decode(),
)  # fmt: skip
def test_what_is_no_json_object_is_refused(schema: Any) -> None:
    with pytest.raises(InvalidParameter) as caught:
        SamplingParameters(json_schema=schema)
    assert caught.value.parameter == "json_schema"


def test_a_schema_that_holds_itself_is_refused() -> None:
    schema: dict[str, Any] = {}
    schema["items"] = schema
    with pytest.raises(InvalidParameter):
        SamplingParameters(json_schema=schema)


@pytest.mark.parametrize("parameter", ["regex", "grammar"])
@pytest.mark.parametrize(
    "text", ["", "a\0b", "\ud800", "x" * (MAX_GRAMMAR_BYTES + 1), "é" * (MAX_GRAMMAR_BYTES // 2 + 1), 7, b"a"]
)
def test_what_is_no_text_of_the_right_size_is_refused(parameter: str, text: Any) -> None:
    with pytest.raises(InvalidParameter) as caught:
        SamplingParameters(**{parameter: text})
    assert caught.value.parameter == parameter


def test_only_one_grammar_is_taken() -> None:
    with pytest.raises(InvalidParameter, match="None while json_schema is set"):
        SamplingParameters(json_schema={}, regex="a")


def test_a_grammar_says_where_a_reply_ends_so_ignore_eos_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="ignore_eos"):
        SamplingParameters(regex="a", ignore_eos=True)


@pytest.mark.parametrize("divisor", [1, 7, 9999, 10_000, 0.01, 0.5, 1.25, 1e-9, 2.0])
def test_small_divisors_are_taken(divisor: float) -> None:
    assert SamplingParameters(json_schema={"multipleOf": divisor}).constraint is not None


@pytest.mark.parametrize("divisor", [10_001, 999_983, 1e9, 1e300, 1.23457, 10**400, 0.123456789012345])
def test_a_divisor_that_would_take_gigabytes_is_refused_however_deep_it_stands(divisor: float) -> None:
    schema = {"properties": {"a": {"items": {"anyOf": [{"multipleOf": divisor}]}}}}
    with pytest.raises(InvalidParameter, match="multipleOf"):
        SamplingParameters(json_schema=schema)
    with pytest.raises(InvalidParameter, match="multipleOf"):
        SamplingParameters(grammar=f"start: %json {json.dumps(schema)}")
