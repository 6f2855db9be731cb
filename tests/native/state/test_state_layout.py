"""The headers of a saved sequence: written, read, and refused when anything in them is not as expected."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from state_values import layouts, random_state, sequence_ids, spelled_out

from paddock.errors import SequenceStateError
from paddock.native.state.blocks import cut
from paddock.native.state.layout import Plane, SavedState, StateLayout, check_headers, parse_state

LLAMA = StateLayout(4, True, False, 2, (Plane(1, 1, 64), Plane(1, 1, 64), Plane(1, 32, 2), Plane(1, 32, 2)))


@given(st.data())
def test_what_was_written_is_parsed_to_the_same_layout(data: st.DataObject) -> None:
    layout = data.draw(layouts())
    sequence_id = data.draw(sequence_ids(layout))
    n_tokens = data.draw(st.integers(2, 9))
    state = random_state(layout, sequence_id, n_tokens, 1)
    parsed = parse_state(state)
    if layout.transposed and len(layout.planes) == layout.n_layers:  # no V at all: nothing says how it would lie
        assert parsed.layout.planes == layout.planes
    else:
        assert parsed == SavedState(layout, sequence_id, n_tokens)


@given(st.data())
def test_the_bytes_are_those_of_the_format_spelled_out(data: st.DataObject) -> None:
    layout = data.draw(layouts())
    sequence_id = data.draw(sequence_ids(layout))
    n_tokens = data.draw(st.integers(1, 5))
    source = random.Random(n_tokens)
    values = [[source.randbytes(plane.rows * plane.item_bytes) for _ in range(n_tokens)] for plane in layout.planes]
    extensions = [source.randbytes(12) for _ in range(n_tokens)]
    state = np.frombuffer(spelled_out(layout, sequence_id, values, extensions), np.uint8)
    check_headers(layout, sequence_id, n_tokens, state)
    payload = np.empty(layout.payload_bytes(1), np.uint8)
    for token in range(n_tokens):
        cut(layout, sequence_id, n_tokens, state, token, token + 1, payload)
        own = [extensions[token]] if layout.extended else []
        assert payload.tobytes() == b"".join(own + [plane[token] for plane in values])


def test_sizes_are_those_of_the_format() -> None:
    assert LLAMA.token_bytes == 2 * 64 + 2 * 32 * 2
    assert LLAMA.payload_bytes(10) == 10 * LLAMA.token_bytes
    assert LLAMA.state_bytes(10) == 12 + 4 * 4 + 10 * 12 + 8 + 4 * 12 + 10 * LLAMA.token_bytes
    assert len(LLAMA.runs) == 2


def test_every_changed_bit_of_a_header_is_noticed() -> None:
    n_tokens = 3
    state = random_state(LLAMA, 2, n_tokens, 5)
    data = random_state(LLAMA, 2, n_tokens, 6)
    headers = [at for at in range(len(state)) if state[at] == data[at]]
    for at in headers:
        for bit in range(8):
            damaged = state.copy()
            damaged[at] ^= 1 << bit
            other = state.copy()
            other[at] = damaged[at]
            try:
                check_headers(LLAMA, 2, n_tokens, damaged)
            except SequenceStateError:
                continue
            assert _is_data(at, n_tokens), at


def _is_data(at: int, n_tokens: int) -> bool:
    """Whether an offset lies in a plane's data: random bytes there may be equal by chance."""
    offset = 12 + 4 * 3 + 12 * n_tokens + 8
    for plane in LLAMA.planes:
        offset += 12
        if offset <= at < offset + plane.rows * plane.item_bytes * n_tokens:
            return True
        offset += plane.rows * plane.item_bytes * n_tokens
    return False


def test_a_state_cut_off_anywhere_is_refused() -> None:
    state = random_state(LLAMA, 1, 2, 0)
    for length in range(len(state)):
        with pytest.raises(SequenceStateError):
            parse_state(state[:length])
    with pytest.raises(SequenceStateError):
        parse_state(np.append(state, np.uint8(0)))


@given(st.binary(max_size=300), st.integers(0, 300))
def test_no_bytes_do_more_than_raise(garbage: bytes, at: int) -> None:
    state = random_state(LLAMA, 1, 3, 0).tobytes()
    for data in (garbage, state[:at] + garbage + state[at + len(garbage) :]):
        try:
            parsed = parse_state(np.frombuffer(data, np.uint8))
        except SequenceStateError:
            continue
        assert parsed.layout.state_bytes(parsed.n_tokens) == len(data)


def test_a_sequence_without_tokens_is_no_state() -> None:
    with pytest.raises(SequenceStateError):
        parse_state(np.frombuffer(b"\xd8\x3c\x14\xaf" + bytes(4) + b"\2\0\0\0" + bytes(8), np.uint8))


def test_cells_in_another_order_are_refused() -> None:
    state = random_state(LLAMA, 0, 3, 0)
    cells = state[LLAMA.cells_offset(0) :][:36].reshape(3, 12)
    cells[[0, 1]] = cells[[1, 0]]
    with pytest.raises(SequenceStateError):
        parse_state(state)
