"""Detokenizing token by token against llama_detokenize of the whole, and against its C++ loops with byte origins."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.native.model import NativeModel
from paddock.text.detokenizer import IncrementalDetokenizer, detokenize
from paddock.text.pieces import PieceTable

BYTES = PieceTable.from_pieces([bytes([byte]) for byte in range(256)], clean_spaces=True)
# Every byte that a clean-up rule looks at, and one that none does.
CRITICAL = [ord(char) for char in " ' .?!,smrevtdlx"]


def survivors(text: bytes) -> list[int]:
    """The indices of the bytes that llama.cpp's clean-up leaves: its three passes over (byte, index) pairs."""
    pairs = [(byte, index) for index, byte in enumerate(text)]
    out = pairs[:1]
    for i in range(1, len(pairs)):
        if pairs[i - 1][0] == 0x20 and pairs[i][0] in b"?!.,":
            out.pop()
        out.append(pairs[i])
    pairs, out, i = out, out[:1], 1
    while i < len(pairs):
        pair = pairs[i]
        between = i + 1 < len(pairs) and pairs[i - 1][0] == 0x20 and pairs[i + 1][0] == 0x20
        if pair[0] == 0x27 and between:
            out.pop()
            i += 1
            pairs[i] = (0, -1)
        out.append(pair)
        i += 1
    pairs, out = out, out[:1]
    for i in range(1, len(pairs)):
        if pairs[i - 1][0] == 0x20 and pairs[i][0] == 0x27 and i + 1 < len(pairs):
            after = bytes(byte for byte, _ in pairs[i + 1 : i + 3])
            if after[:1] in (b"s", b"m") or after in (b"re", b"ve"):
                out.pop()
        out.append(pairs[i])
    return [index for _, index in out]


def whole_and_generated(
    table: PieceTable, prompt: list[int], tokens: list[int], *, skip_special: bool = True
) -> tuple[bytes, bytes]:
    """The text of prompt and generation together, and the part of it that stems from the generation."""
    pieces = [table.piece(token, skip_special=skip_special) for token in (*prompt, *tokens)]
    if pieces and table.add_space_prefix:
        pieces[0] = pieces[0].removeprefix(b" ")
    raw = b"".join(pieces)
    border = sum(map(len, pieces[: len(prompt)]))
    left = survivors(raw) if table.clean_spaces else list(range(len(raw)))
    return bytes(raw[i] for i in left), bytes(raw[i] for i in left if i >= border)


def incremental(table: PieceTable, tokens: list[int], prompt: list[int], *, skip_special: bool = True) -> bytes:
    detokenizer = IncrementalDetokenizer(table, skip_special=skip_special, prompt=prompt)
    return b"".join(detokenizer.feed(token) for token in tokens) + detokenizer.finish()


@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_fed_token_by_token_the_text_equals_llama_detokenize_of_the_whole(
    vocabulary: NativeModel, data: st.DataObject
) -> None:
    table = vocabulary.piece_table()
    token = st.one_of(
        st.integers(256, table.n_vocab - 1), st.integers(0, table.n_vocab - 1), st.sampled_from(sorted(table.control))
    )
    prompt = data.draw(st.lists(token, max_size=5))
    tokens = data.draw(st.lists(token, max_size=12))
    skip_special = data.draw(st.booleans())
    whole, generated = whole_and_generated(table, prompt, tokens, skip_special=skip_special)
    assert whole == vocabulary.detokenize([*prompt, *tokens], False, not skip_special)
    assert incremental(table, tokens, prompt, skip_special=skip_special) == generated


def test_the_vocabularies_differ_in_the_rules_that_the_property_is_about(vocabulary: NativeModel, request) -> None:  # type: ignore[no-untyped-def]
    table = vocabulary.piece_table()
    name = request.node.callspec.params["vocabulary"]
    assert table.add_space_prefix == (name == "spm-prefix")
    assert table.clean_spaces == (name == "bpe-cleaning")


def test_tokenized_text_comes_back_as_it_was(vocabulary: NativeModel) -> None:
    text = "the cat's tail 'x' 日本 🦙 is it? no. they 're"
    tokens = vocabulary.tokenize(text.encode(), False, False)
    table = vocabulary.piece_table()
    assert detokenize(table, tokens) == vocabulary.detokenize(tokens, False, False)


@settings(max_examples=800, deadline=None)
@given(prompt=st.lists(st.sampled_from(CRITICAL), max_size=8), tokens=st.lists(st.sampled_from(CRITICAL), max_size=20))
def test_clean_up_rules_hold_across_every_border(prompt: list[int], tokens: list[int]) -> None:
    _, generated = whole_and_generated(BYTES, prompt, tokens)
    assert incremental(BYTES, tokens, prompt) == generated


@settings(max_examples=300, deadline=None)
@given(tokens=st.lists(st.sampled_from(CRITICAL), max_size=30))
def test_nothing_is_taken_back_and_at_most_five_bytes_are_held(tokens: list[int]) -> None:
    detokenizer = IncrementalDetokenizer(BYTES)
    emitted = 0
    for count, token in enumerate(tokens, 1):
        emitted += len(detokenizer.feed(token))
        assert detokenizer.held <= 5
        assert emitted + detokenizer.held <= count
    assert len(detokenizer.finish()) <= 5
    assert detokenizer.held == 0


@pytest.mark.parametrize(
    ("prompt", "generated", "expected"),
    [
        (b"it", b" 's", b"'s"),
        (b"it ", b"'s", b"'s"),  # the space that goes is the prompt's
        (b"it '", b"s", b"s"),
        (b"they 'r", b"e", b"e"),
        (b"a ' ", b"' b", b"' b"),  # the prompt's lone apostrophe took the space
        (b"x", b" .", b"."),
        (b"x ", b" .", b"."),
    ],
)
def test_the_prompt_takes_part_in_the_clean_up_at_the_border(prompt: bytes, generated: bytes, expected: bytes) -> None:
    assert incremental(BYTES, list(generated), list(prompt)) == expected


def test_only_the_end_of_a_long_prompt_is_read() -> None:
    class Counting(list[int]):
        reads = 0

        def __getitem__(self, index):  # type: ignore[no-untyped-def]
            Counting.reads += 1
            return super().__getitem__(index)

    IncrementalDetokenizer(BYTES, prompt=Counting(b"word " * 10_000))
    assert Counting.reads <= 3


def test_a_token_outside_the_vocabulary_is_an_index_error() -> None:
    for token in (-1, 256):
        with pytest.raises(IndexError, match="outside the vocabulary"):
            IncrementalDetokenizer(BYTES).feed(token)
