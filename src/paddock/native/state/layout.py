"""The layout of a saved sequence, as ``llama_state_seq_get_data`` of the pinned llama.cpp writes it.

    magic u32, sequence id i32, number of streams u32
    per stream: cells u32; where there are any (in one stream only):
        per cell: position i32, sequences 1 u32, [extension, 12 bytes], sequence id i32
        V transposed u32, layers u32
        per layer: K type i32, row bytes u64, a row for each token
        per layer that has V: the same, or, transposed: V type i32, element bytes u32, width u32,
            and for each of the elements of a row one element for each token

Read from ``llama-context.cpp`` and ``llama-kv-cache.cpp`` (``state_write*``), and checked at every load by
:mod:`paddock.native.state.self_check`: it is internal to llama.cpp and may change with any version. What belongs to
one token lies in *planes*: ``rows`` rows of ``item_bytes`` for each token. The extension holds the position in an
image or the token id, for the models that need them; it is treated as one more plane.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import groupby
from typing import Final

import attrs
import numpy as np
import numpy.typing as npt

from paddock.errors import SequenceStateError
from paddock.models.ggml_types import GGML_TYPES

__all__ = ["Bytes", "Plane", "PlaneRun", "SavedState", "StateLayout", "check_headers", "parse_state", "write_headers"]

Bytes = npt.NDArray[np.uint8]

_MAGIC: Final = 0xAF143CD8
_HEAD = struct.Struct("<IiI")
_COUNT = struct.Struct("<I")
_DATA_HEAD = struct.Struct("<II")
_ROW_HEAD = struct.Struct("<iQ")
_COLUMN_HEAD = struct.Struct("<iII")
_PLANE_HEAD_BYTES = 12  # both
_CELL_HEAD_BYTES = 8
_EXTENSION_BYTES = 12
_ID_BYTES = 4
_MAX_STREAMS = 256
_MAX_LAYERS = 4096


@attrs.frozen
class Plane:
    """K or V of one layer. One row where a token's values lie together; where V is transposed, as many rows as a
    value has elements."""

    ggml_type: int
    rows: int
    item_bytes: int


@attrs.frozen
class PlaneRun:
    """``count`` planes of one shape that follow each other at equal distances in a state.

    For ``n`` tokens the first one's data begin ``fixed + per_token * n`` bytes behind the begin of the cells; from
    token to token it is ``token_stride`` bytes, and ``gap`` bytes lie between one plane's data and the next one's.
    """

    count: int
    rows: int
    item_bytes: int
    token_stride: int
    fixed: int
    per_token: int
    gap: int


@attrs.frozen
class StateLayout:
    """What a context's saved sequences have in common, whatever their ids and lengths.

    ``planes``: K of every layer, then V of every layer that has one. ``extended``: whether cells have an extension.
    """

    n_streams: int
    transposed: bool
    extended: bool
    n_layers: int
    planes: tuple[Plane, ...]
    runs: tuple[PlaneRun, ...] = attrs.field(init=False, eq=False, repr=False)
    token_bytes: int = attrs.field(init=False, eq=False)
    """Bytes of one token in a payload."""

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "runs", tuple(_runs_of(self)))
        object.__setattr__(self, "token_bytes", sum(run.count * run.rows * run.item_bytes for run in self.runs))

    @property
    def cell_bytes(self) -> int:
        return _CELL_HEAD_BYTES + _EXTENSION_BYTES * self.extended + _ID_BYTES

    def stream(self, sequence_id: int) -> int:
        """The stream that a sequence's cells lie in."""
        return sequence_id if self.n_streams > 1 else 0

    def cells_offset(self, sequence_id: int) -> int:
        """Where a sequence's cells begin: behind its stream's count."""
        return _HEAD.size + _COUNT.size * (self.stream(sequence_id) + 1)

    def payload_bytes(self, n_tokens: int) -> int:
        """Bytes of the payload of ``n_tokens`` tokens: no headers, nothing that depends on where they stand."""
        return self.token_bytes * n_tokens

    def state_bytes(self, n_tokens: int) -> int:
        """Bytes that llama.cpp writes for a sequence of ``n_tokens`` tokens, one at least."""
        planes = sum(_PLANE_HEAD_BYTES + plane.rows * plane.item_bytes * n_tokens for plane in self.planes)
        counts = _COUNT.size * self.n_streams
        return _HEAD.size + counts + self.cell_bytes * n_tokens + _DATA_HEAD.size + planes

    def in_state(self, run: PlaneRun, state: Bytes, sequence_id: int, n_tokens: int) -> Bytes:
        """A view (count, rows, n_tokens, item_bytes) of a run's data in the state of a sequence."""
        row = run.token_stride * n_tokens
        return np.ndarray(
            (run.count, run.rows, n_tokens, run.item_bytes),
            np.uint8,
            state.data,
            self.cells_offset(sequence_id) + run.fixed + run.per_token * n_tokens,
            (run.rows * row + run.gap, row, run.token_stride, 1),
        )


@attrs.frozen
class SavedState:
    """What the headers of one saved sequence say."""

    layout: StateLayout
    sequence_id: int
    n_tokens: int


def _runs_of(layout: StateLayout) -> Iterator[PlaneRun]:
    if layout.extended:
        yield PlaneRun(1, 1, _EXTENSION_BYTES, layout.cell_bytes, _CELL_HEAD_BYTES, 0, 0)
    fixed = _DATA_HEAD.size
    per_token = layout.cell_bytes
    for (rows, item_bytes), group in groupby(layout.planes, lambda plane: (plane.rows, plane.item_bytes)):
        count = len(list(group))
        data = fixed + _PLANE_HEAD_BYTES
        yield PlaneRun(count, rows, item_bytes, item_bytes, data, per_token, _PLANE_HEAD_BYTES)
        fixed += count * _PLANE_HEAD_BYTES
        per_token += count * rows * item_bytes


# --- headers --------------------------------------------------------------------------------------------


def write_headers(layout: StateLayout, sequence_id: int, n_tokens: int, state: Bytes) -> None:
    """Writes everything that a state of ``n_tokens`` tokens (one at least) holds beside the planes' data.

    ``state`` has :meth:`StateLayout.state_bytes` bytes.
    """
    for offset, header in _headers(layout, sequence_id, n_tokens):
        state[offset : offset + len(header)] = np.frombuffer(header, np.uint8)
    for cells, expected in _cells(layout, sequence_id, n_tokens, state):
        cells[:] = expected


def check_headers(layout: StateLayout, sequence_id: int, n_tokens: int, state: Bytes) -> None:
    """SequenceStateError where ``state`` holds other headers than :func:`write_headers` writes."""
    if len(state) != layout.state_bytes(n_tokens):
        raise SequenceStateError(f"{n_tokens} tokens have {len(state)} bytes, not {layout.state_bytes(n_tokens)}")
    data = state.data
    for offset, header in _headers(layout, sequence_id, n_tokens):
        if data[offset : offset + len(header)] != header:
            raise SequenceStateError(f"it has another header than expected at {offset}")
    for cells, expected in _cells(layout, sequence_id, n_tokens, state):
        if not (cells == expected).all():
            raise SequenceStateError("its cells do not hold the tokens in their order")


def _headers(layout: StateLayout, sequence_id: int, n_tokens: int) -> Iterator[tuple[int, bytes]]:
    """Offset and bytes of each header but the cells."""
    before = layout.stream(sequence_id)
    yield 0, _HEAD.pack(_MAGIC, sequence_id, layout.n_streams) + bytes(_COUNT.size * before) + _COUNT.pack(n_tokens)
    offset = layout.cells_offset(sequence_id) + layout.cell_bytes * n_tokens
    yield offset, _DATA_HEAD.pack(layout.transposed, layout.n_layers)
    offset += _DATA_HEAD.size
    for number, plane in enumerate(layout.planes):
        if layout.transposed and number >= layout.n_layers:
            yield offset, _COLUMN_HEAD.pack(plane.ggml_type, plane.item_bytes, plane.rows)
        else:
            yield offset, _ROW_HEAD.pack(plane.ggml_type, plane.item_bytes)
        offset += _PLANE_HEAD_BYTES + plane.rows * plane.item_bytes * n_tokens
    yield offset, bytes(_COUNT.size * (layout.n_streams - 1 - before))


_Integers = npt.NDArray[np.int32]


def _cells(
    layout: StateLayout, sequence_id: int, n_tokens: int, state: Bytes
) -> Iterator[tuple[_Integers, _Integers | int]]:
    """Views of the cells' positions, counts and sequence ids, each with what it has to hold."""
    offset = layout.cells_offset(sequence_id)

    def view(at: int) -> _Integers:
        return np.ndarray((n_tokens,), np.dtype("<i4"), state.data, offset + at, (layout.cell_bytes,))

    yield view(0), np.arange(n_tokens, dtype="<i4")
    yield view(_CELL_HEAD_BYTES - 4), 1
    yield view(layout.cell_bytes - _ID_BYTES), sequence_id


def parse_state(state: Bytes) -> SavedState:
    """Reads the headers of one saved sequence. SequenceStateError for anything that is not laid out like one whose
    tokens stand at positions 0, 1, 2, ... in the order of their cells."""
    problem = ""
    for extended in (False, True):
        try:
            return _parse(state, extended)
        except SequenceStateError as error:
            problem = problem or error.problem
        except (struct.error, ValueError) as error:
            problem = problem or str(error)
    raise SequenceStateError(f"it is not laid out as expected: {problem}")


def _parse(state: Bytes, extended: bool) -> SavedState:
    magic, sequence_id, n_streams = _HEAD.unpack_from(state.data)
    if magic != _MAGIC or not 1 <= n_streams <= _MAX_STREAMS or sequence_id < 0:
        raise ValueError(f"it begins with {magic:#x}, sequence {sequence_id} and {n_streams} streams")
    layout = StateLayout(n_streams, False, extended, 0, ())
    (n_tokens,) = _COUNT.unpack_from(state.data, layout.cells_offset(sequence_id) - _COUNT.size)
    offset = layout.cells_offset(sequence_id) + layout.cell_bytes * n_tokens
    transposed, n_layers = _DATA_HEAD.unpack_from(state.data, offset)
    if n_tokens == 0 or transposed > 1 or not 1 <= n_layers <= _MAX_LAYERS:
        raise ValueError(f"{n_tokens} tokens, {n_layers} layers")
    end = len(state) - _COUNT.size * (n_streams - 1 - layout.stream(sequence_id))
    offset += _DATA_HEAD.size
    planes: list[Plane] = []
    while offset < end:
        plane = _plane(state, offset, transposed and len(planes) >= n_layers)
        planes.append(plane)
        offset += _PLANE_HEAD_BYTES + plane.rows * plane.item_bytes * n_tokens
    if not n_layers <= len(planes) <= 2 * n_layers:
        raise ValueError(f"{len(planes)} planes of {n_layers} layers")
    layout = StateLayout(n_streams, bool(transposed), extended, n_layers, tuple(planes))
    check_headers(layout, sequence_id, n_tokens, state)
    return SavedState(layout, sequence_id, n_tokens)


def _plane(state: Bytes, offset: int, transposed: bool) -> Plane:
    rows = 1
    if transposed:
        ggml_type, item_bytes, rows = _COLUMN_HEAD.unpack_from(state.data, offset)
    else:
        ggml_type, item_bytes = _ROW_HEAD.unpack_from(state.data, offset)
    kind = GGML_TYPES.get(ggml_type)
    if kind is None or rows < 1 or item_bytes < 1 or item_bytes % kind.block_bytes:
        raise ValueError(f"a plane of type {ggml_type}, {rows} rows and {item_bytes} bytes a token")
    return Plane(ggml_type, rows, item_bytes)
