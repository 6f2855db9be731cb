from __future__ import annotations

import itertools

from hypothesis import example, given, settings
from hypothesis import strategies as st

from paddock.text.utf8 import IncrementalDecoder

NASTY = st.lists(
    st.sampled_from(
        [
            b"a",
            "é".encode(),
            "語".encode(),
            "🦙".encode(),
            b"\x80",
            b"\xc0",
            b"\xe2\x82",
            b"\xf0\x9f\xa6",
            b"\xed\xa0\x80",
        ]
        + [bytes([byte]) for byte in (0xC3, 0xE0, 0xE2, 0xED, 0xF0, 0xF4, 0xF5, 0xFF, 0x90, 0xBF)]
    ),
    max_size=12,
).map(b"".join)


@settings(max_examples=500, deadline=None)
@given(data=st.one_of(NASTY, st.binary(max_size=24)), cuts=st.lists(st.integers(0, 40), max_size=8))
@example(data=b"\xf0\x9f\xa6\x99", cuts=[1, 2, 3])
@example(data=b"\xf0\x9f\xa6", cuts=[1, 2])
def test_every_cut_decodes_like_the_whole(data: bytes, cuts: list[int]) -> None:
    borders = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    decoder = IncrementalDecoder()
    text = ""
    for begin, end in itertools.pairwise(borders):
        piece = decoder.feed(data[begin:end])
        text += piece
        # What was emitted is final: it never ends in half a character that later bytes complete.
        assert data.decode("utf-8", "replace").startswith(text)
        assert len(decoder.pending) <= 3
    assert text + decoder.finish() == data.decode("utf-8", "replace")
    assert decoder.pending == b""


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=20))
def test_byte_by_byte_each_character_appears_with_its_last_byte(text: str) -> None:
    decoder = IncrementalDecoder()
    for char in text.encode("utf-8", "ignore").decode():
        *first, last = char.encode()
        assert [decoder.feed(bytes([byte])) for byte in first] == [""] * len(first)
        assert decoder.feed(bytes([last])) == char


def test_an_unfinished_character_ends_as_one_replacement_character() -> None:
    decoder = IncrementalDecoder()
    assert decoder.feed("🦙".encode()[:3]) == ""
    assert decoder.finish() == "\ufffd"
    assert decoder.finish() == ""
