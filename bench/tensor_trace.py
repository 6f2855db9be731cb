"""Every intermediate tensor of a decode call, by position: the most sensitive way to see whether a kernel is exact.

Logits hide small differences: activations are rounded to 8 bits before most matrix products. ``Trace`` listens as
llama.cpp computes (``cb_eval``) and keeps the bytes of each float row that belongs to one token.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from paddock.native import library


class _Tensor(ctypes.Structure):
    """``struct ggml_tensor`` of the pinned version."""

    _fields_ = [
        ("type", ctypes.c_int), ("buffer", ctypes.c_void_p), ("ne", ctypes.c_int64 * 4), ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int), ("op_params", ctypes.c_int32 * 16), ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10), ("view_src", ctypes.c_void_p), ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p), ("name", ctypes.c_char * 64),
    ]  # fmt: skip


class Trace:
    """``rows``: (name, how often it came in the call, position) → bytes, of the positions that are ``wanted``."""

    def __init__(self) -> None:
        self.lib: Any = library.load()
        self.rows: dict[tuple[str, int, int], bytes] = {}
        self.wanted = range(0)
        self._positions: list[int] = []
        self._seen: dict[str, int] = {}
        self._listener = self.lib.ggml_backend_sched_eval_callback(self._computed)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Contexts that are made within it are listened to."""
        original = self.lib.llama_context_default_params

        def parameters() -> Any:
            made = original()
            made.cb_eval = self._listener
            return made

        self.lib.llama_context_default_params = parameters
        try:
            yield
        finally:
            self.lib.llama_context_default_params = original

    def next_call(self) -> None:
        self._seen.clear()
        self._positions = []

    def _computed(self, pointer: Any, ask: bool, _: object) -> bool:
        if ask:
            return True
        tensor = ctypes.cast(pointer, ctypes.POINTER(_Tensor)).contents
        name = tensor.name.decode()
        if name in ("Qcur-0", "Kcur-0") and tensor.src[1]:
            self._read_positions(tensor)
        if tensor.type == 0 and self._positions:
            self._record(name, tensor)
        return True

    def _read_positions(self, tensor: Any) -> None:
        """The second operand of the rotation is the position of each row."""
        source = ctypes.cast(tensor.src[1], ctypes.POINTER(_Tensor)).contents
        if source.type == 26 and source.ne[1] == 1:  # GGML_TYPE_I32
            positions = (ctypes.c_int32 * source.ne[0]).from_address(source.data)
            if list(positions) != self._positions:
                self._seen.clear()  # another ubatch of the same call
            self._positions = list(positions)

    def _record(self, name: str, tensor: Any) -> None:
        n_rows = len(self._positions)
        shape, strides = list(tensor.ne), list(tensor.nb)
        occurrence = self._seen.get(name, 0)
        self._seen[name] = occurrence + 1
        contiguous = strides[0] == 4 and all(strides[i + 1] == strides[i] * shape[i] for i in range(3))
        if not contiguous or shape[3] != 1 or name.startswith("kq-"):  # kq- is not masked yet
            return
        axis = 2 if shape[2] == n_rows and n_rows > 1 else 1
        if shape[axis] != n_rows or (axis == 1 and shape[2] != 1):
            return
        count = shape[0] * shape[1] * shape[2]
        values = np.frombuffer((ctypes.c_float * count).from_address(tensor.data), np.float32)
        for index, row in enumerate(values.reshape(n_rows, -1)):
            if self._positions[index] in self.wanted:
                self.rows[name, occurrence, self._positions[index]] = row.tobytes()


def difference(left: Trace | dict[Any, bytes], right: dict[Any, bytes]) -> dict[str, str]:
    """For each kind of tensor that differs, in how many rows it does."""
    left_rows = left.rows if isinstance(left, Trace) else left
    both: dict[str, int] = {}
    apart: dict[str, int] = {}
    for key, row in left_rows.items():
        other = right.get(key)
        if other is None or len(other) != len(row):
            continue
        kind = key[0].partition("-")[0]
        both[kind] = both.get(kind, 0) + 1
        if other != row:
            apart[kind] = apart.get(kind, 0) + 1
    if not both:
        return {"nothing": "was compared"}
    return {kind: f"{count} of {both[kind]}" for kind, count in apart.items()}
