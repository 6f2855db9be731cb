"""Grammars as values: what the whole reply must match. Compiled by the worker; see ``paddock.native.grammar``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal

import attrs

from paddock.errors import InvalidParameter

__all__ = ["GRAMMAR_PARAMETERS", "MAX_GRAMMAR_BYTES", "Grammar", "GrammarText", "JsonSchema"]

GRAMMAR_PARAMETERS = ("json_schema", "regex", "grammar")

MAX_GRAMMAR_BYTES = 65_536

MAX_DIVISOR = 10_000
"""Of ``multipleOf``, without its decimal point: llguidance makes a state for each remainder, some hundred bytes each,
and a large divisor would take gigabytes and minutes."""

_DIVISOR = re.compile(r'"multipleOf"\s*:\s*(-?[0-9.]+(?:[eE][-+]?[0-9]+)?)')


@attrs.frozen
class Grammar:
    """``parameter`` is the one of :data:`GRAMMAR_PARAMETERS` that gave it, and says how ``text`` is read."""

    parameter: str
    text: str = attrs.field(repr=False)


@attrs.frozen
class GrammarText:
    """A text of 1 to ``longest`` UTF-8 bytes, or None. Whether it compiles is found out by the worker."""

    language: str
    longest: int = MAX_GRAMMAR_BYTES

    @property
    def allowed(self) -> str:
        return f"{self.language} of 1 to {self.longest} UTF-8 bytes, without NUL, or None"

    def accept(self, parameter: str, value: object) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str) or not self._fits(value):
            raise InvalidParameter(parameter, value, self.allowed)
        for written in _DIVISOR.findall(value):  # in a schema within a grammar
            _check_divisor(parameter, value, written)
        return str.__str__(value)

    def _fits(self, text: str) -> bool:
        try:
            return "\0" not in text and 0 < len(text) <= self.longest and len(text.encode()) <= self.longest
        except UnicodeEncodeError:  # a lone surrogate is no text
            return False


@attrs.frozen
class JsonSchema:
    """A JSON object, as a mapping or as text, or None; kept as text, with its keys in their order."""

    longest: int = MAX_GRAMMAR_BYTES

    @property
    def allowed(self) -> str:
        return f"a JSON schema: an object, or the text of one, of at most {self.longest} UTF-8 bytes, or None"

    def accept(self, parameter: str, value: object) -> str | None:
        if value is None:
            return None
        text: object = value
        try:
            if isinstance(value, Mapping):
                text = json.dumps(dict(value), ensure_ascii=False, allow_nan=False)
            if isinstance(text, str) and len(text) <= self.longest and len(text.encode()) <= self.longest:
                read = json.loads(text, parse_constant=_no_constant)
                # What json.dumps makes of a mapping, and json.loads of a text, is read by llguidance in its turn.
                if isinstance(read, dict):
                    for divisor in _divisors(read):
                        _check_divisor(parameter, value, str(divisor))
                    return str.__str__(text)
        except InvalidParameter:
            raise
        except (TypeError, ValueError, RecursionError):
            pass
        raise InvalidParameter(parameter, value, self.allowed)


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def _divisors(schema: object) -> Iterator[int | float]:
    """Every ``multipleOf`` in a schema that has been read, however deep."""
    waiting = [schema]
    while waiting:
        match waiting.pop():
            case dict() as mapping:
                divisor = mapping.get("multipleOf")
                if isinstance(divisor, int | float) and not isinstance(divisor, bool):
                    yield divisor
                waiting.extend(mapping.values())
            case list() as items:
                waiting.extend(items)


def _check_divisor(parameter: str, value: object, written: str) -> None:
    allowed = f"multipleOf of at most {MAX_DIVISOR} without its decimal point"
    try:
        _, digits, exponent = Decimal(written).as_tuple()
    except ArithmeticError:
        raise InvalidParameter(parameter, value, allowed) from None
    if not isinstance(exponent, int) or exponent + len(digits) > 5 + max(0, -exponent) or len(digits) > 20:
        raise InvalidParameter(parameter, value, allowed)
    divisor = int("".join(map(str, digits))) * 10 ** max(exponent, 0)
    if divisor > MAX_DIVISOR:
        raise InvalidParameter(parameter, value, allowed)
