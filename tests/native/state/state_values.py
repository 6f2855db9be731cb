"""Layouts drawn at random, and states filled with random bytes."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from paddock.native.state.layout import Bytes, Plane, StateLayout, write_headers

_TYPES = {0: 4, 1: 2, 30: 2, 8: 34, 2: 18}  # ggml type: bytes of a block


@st.composite
def layouts(draw: st.DrawFn) -> StateLayout:
    n_layers = draw(st.integers(1, 4))
    transposed = draw(st.booleans())
    extended = draw(st.booleans())

    def rows() -> Plane:
        kind = draw(st.sampled_from(sorted(_TYPES)))
        return Plane(kind, 1, _TYPES[kind] * draw(st.integers(1, 3)))

    def columns() -> Plane:
        kind = draw(st.sampled_from([0, 1, 30]))
        return Plane(kind, draw(st.integers(1, 5)), _TYPES[kind])

    if draw(st.booleans()):  # as most models: all layers alike
        key, value = rows(), columns() if transposed else rows()
        planes = [key] * n_layers + [value] * n_layers
    else:
        values = draw(st.integers(0, n_layers))
        planes = [rows() for _ in range(n_layers)] + [columns() if transposed else rows() for _ in range(values)]
    return StateLayout(draw(st.integers(1, 6)), transposed, extended, n_layers, tuple(planes))


def sequence_ids(layout: StateLayout) -> st.SearchStrategy[int]:
    return st.integers(0, layout.n_streams - 1) if layout.n_streams > 1 else st.integers(0, 7)


def random_state(layout: StateLayout, sequence_id: int, n_tokens: int, seed: int) -> Bytes:
    state = np.random.default_rng(seed).integers(0, 256, layout.state_bytes(n_tokens), np.uint8)
    write_headers(layout, sequence_id, n_tokens, state)
    return state


def spelled_out(layout: StateLayout, sequence_id: int, values: list[list[bytes]], extensions: list[bytes]) -> bytes:
    """A state written byte by byte as llama.cpp's ``state_write`` does it. ``values[plane][token]`` are the bytes of
    one token in one plane: all of its elements."""

    def u32(value: int) -> bytes:
        return value.to_bytes(4, "little")

    n_tokens = len(values[0])
    out = u32(0xAF143CD8) + u32(sequence_id) + u32(layout.n_streams)
    for stream in range(layout.n_streams):
        if stream != (sequence_id if layout.n_streams > 1 else 0):
            out += u32(0)
            continue
        out += u32(n_tokens)
        for position in range(n_tokens):
            out += u32(position) + u32(1)
            if layout.extended:
                out += extensions[position]
            out += u32(sequence_id)
        out += u32(int(layout.transposed)) + u32(layout.n_layers)
        for number, plane in enumerate(layout.planes):
            out += u32(plane.ggml_type)
            if layout.transposed and number >= layout.n_layers:
                out += u32(plane.item_bytes) + u32(plane.rows)
            else:
                out += plane.item_bytes.to_bytes(8, "little")
            for row in range(plane.rows):
                for token in range(n_tokens):
                    at = row * plane.item_bytes
                    out += values[number][token][at : at + plane.item_bytes]
    return out
