from __future__ import annotations

import json
import math
from pathlib import Path

import attrs
from hypothesis import given
from hypothesis import strategies as st

from paddock.cli.plain import as_json, plain, printable


@attrs.frozen
class Point:
    x: float
    parts: tuple[object, ...] = ()


def test_values_become_dicts_lists_and_strings() -> None:
    value = {7: Point(1.5, (Path("a/b"), b"\xff", None, True)), "set": frozenset({3})}
    assert plain(value) == {"7": {"x": 1.5, "parts": ["a/b", "\\xff", None, True]}, "set": [3]}


def test_numbers_that_json_lacks_become_strings() -> None:
    assert plain([math.nan, math.inf, -math.inf]) == ["nan", "inf", "-inf"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    st.sampled_from(["utf-8", "latin-1", "ascii"]),
)
def test_json_is_one_line_that_reads_back_in_every_encoding(value: object, encoding: str) -> None:
    data = as_json({"value": value}, encoding=encoding)
    assert data.count(b"\n") == 1
    assert json.loads(data.decode(encoding)) == {"value": plain(value)}


def test_a_lone_surrogate_is_escaped() -> None:
    assert as_json({"a": "\udcff"}) == b'{"a": "\\udcff"}\n'


@given(st.text())
def test_nothing_printable_can_steer_a_terminal(text: str) -> None:
    shown = printable(text)
    assert len(shown) == len(text)
    assert not any((ord(c) < 0x20 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 for c in shown)


def test_ordinary_text_is_printed_as_it_is() -> None:
    assert printable("Grüße, 日本\n\t🦙") == "Grüße, 日本\n\t🦙"
    assert printable("\x1b[31m") == "␛[31m"
