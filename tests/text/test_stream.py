from __future__ import annotations

import codecs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_detokenizer import CRITICAL, whole_and_generated
from test_stops import slow_scan

from paddock.text.pieces import PieceTable
from paddock.text.stream import AssembledDelta, TextAssembler, TokenLogprob

PIECES = [bytes([byte]) for byte in range(256)] + [
    b"<s>",
    b"",
    "🦙".encode(),
    b" word",
    b"END",
    b"a\xf0\x9f",
    b"\xa6\x99b",
]
CONTROL = 256


def table_with(*, clean_spaces: bool) -> PieceTable:
    return PieceTable.from_pieces(PIECES, control=[CONTROL], clean_spaces=clean_spaces)


def assemble(assembler: TextAssembler, tokens: list[int]) -> list[AssembledDelta]:
    deltas = []
    for index, token in enumerate(tokens):
        delta = assembler.feed(token, -float(index), [(token, -float(index)), (1, -9.0)])
        if delta is not None:
            deltas.append(delta)
        if assembler.stopped is not None:
            break
    last = assembler.finish()
    return deltas if last is None else [*deltas, last]


TOKENS = st.lists(
    st.one_of(st.sampled_from(CRITICAL), st.integers(0, len(PIECES) - 1), st.integers(256, len(PIECES) - 1)),
    max_size=25,
)


@settings(max_examples=800, deadline=None)
@given(
    tokens=TOKENS,
    prompt=TOKENS,
    clean_spaces=st.booleans(),
    skip_special=st.booleans(),
    stops=st.lists(st.sampled_from(["END", "s", "'s", " .", "🦙", "b", "x'", "\ufffd", "ND word"]), max_size=3),
)
def test_text_is_that_of_the_whole_up_to_the_stop_and_every_token_is_reported_once(
    tokens: list[int], prompt: list[int], clean_spaces: bool, skip_special: bool, stops: list[str]
) -> None:
    table = table_with(clean_spaces=clean_spaces)
    assembler = TextAssembler(table, stops, skip_special=skip_special, prompt=prompt)
    deltas = assemble(assembler, tokens)
    _, generated = whole_and_generated(table, prompt, tokens, skip_special=skip_special)
    expected, stop = slow_scan(stops, generated.decode("utf-8", "replace"))
    assert "".join(delta.text for delta in deltas) == expected
    assert assembler.stopped == stop
    reported = [token for delta in deltas for token in delta.token_ids]
    assert reported == tokens[: len(reported)]
    if stop is None:
        assert reported == tokens
    rows = [row for delta in deltas for row in delta.logprobs or ()]
    assert [(row.token_id, row.logprob) for row in rows] == [(t, -float(i)) for i, t in enumerate(reported)]
    assert all(delta.text or delta.token_ids for delta in deltas)


@settings(max_examples=400, deadline=None)
@given(tokens=TOKENS)
def test_a_token_comes_with_the_delta_that_completes_its_text_no_sooner_and_no_later(tokens: list[int]) -> None:
    assembler = TextAssembler(table_with(clean_spaces=False))
    whole, ends, reported = b"", [], 0
    for token in tokens:
        delta = assembler.feed(token)
        reported += len(delta.token_ids) if delta else 0
        whole += b"" if token == CONTROL else PIECES[token]
        ends.append(len(whole))
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        decoder.decode(whole)
        certain = len(whole) - len(decoder.getstate()[0])
        assert reported == sum(end <= certain for end in ends)


def test_the_tokens_of_a_split_character_come_with_the_character() -> None:
    assembler = TextAssembler(table_with(clean_spaces=False))
    first, *rest = "🦙".encode()
    assert assembler.feed(ord("a")) == AssembledDelta("a", (ord("a"),))
    assert [assembler.feed(token) for token in (first, *rest[:-1])] == [None] * 3
    assert assembler.feed(rest[-1]) == AssembledDelta("🦙", (first, *rest))


def test_text_is_emitted_while_its_token_is_still_incomplete() -> None:
    assembler = TextAssembler(table_with(clean_spaces=False), ["bEND"])
    word = len(PIECES) - 1  # its last byte begins the stop string
    assert assembler.feed(word - 1) == AssembledDelta("a")
    assert assembler.feed(word) == AssembledDelta("🦙", (word - 1,))
    assert assembler.feed(PIECES.index(b"END")) == AssembledDelta("", (word, PIECES.index(b"END")))
    assert assembler.stopped == "bEND"
    assert assembler.finish() is None


def test_tokens_whose_spaces_are_removed_come_as_soon_as_that_is_known() -> None:
    assembler = TextAssembler(table_with(clean_spaces=True))
    assert [assembler.feed(ord(char)) for char in " ' "] == [None] * 3
    assert assembler.feed(ord("x")) == AssembledDelta("'x", tuple(b" ' x"))


def test_a_control_token_is_reported_without_text() -> None:
    assembler = TextAssembler(table_with(clean_spaces=False))
    assert assembler.feed(CONTROL, -0.5) == AssembledDelta("", (CONTROL,), (TokenLogprob(CONTROL, -0.5),))


def test_no_token_can_follow_the_end() -> None:
    stopped = TextAssembler(table_with(clean_spaces=False), ["a"])
    stopped.feed(ord("a"))
    finished = TextAssembler(table_with(clean_spaces=False))
    assert finished.finish() is None
    for assembler in (stopped, finished):
        with pytest.raises(RuntimeError, match="ended"):
            assembler.feed(ord("a"))
        assert assembler.finish() is None


def test_the_cost_of_a_token_does_not_grow_with_the_text() -> None:
    """Nothing in the assembler remembers text that was emitted or tokens that were reported."""
    assembler = TextAssembler(table_with(clean_spaces=True), ["END OF TEXT"])
    for _ in range(5000):
        for byte in b"It 's a word. E":
            assembler.feed(byte, -1.0)
    assert len(assembler._pending) <= 4
    assert len(assembler._scanner.held) <= 12
