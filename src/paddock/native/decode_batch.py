"""The arrays behind a ``llama_batch``, filled from a plan and decoded."""

from __future__ import annotations

import ctypes
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt

from paddock.native.batch import SampleMode
from paddock.native.row_order import RowOrder

__all__ = ["DecodeBatch"]


class DecodeBatch:
    """Reusable memory for batches of at most ``n_batch`` rows. One thread."""

    def __init__(self, lib: Any, n_batch: int) -> None:
        self._lib = lib
        self._tokens = np.zeros(n_batch, np.int32)
        self._positions = np.zeros(n_batch, np.int32)
        self._counts = np.ones(n_batch, np.int32)  # each row belongs to one sequence
        self._sequences = np.zeros(n_batch, np.int32)
        self._outputs = np.zeros(n_batch, np.int8)
        self._pointers = self._sequences.ctypes.data + 4 * np.arange(n_batch, dtype=np.uintp)
        self._batch = lib.llama_batch()
        arrays: dict[str, npt.NDArray[Any]] = {
            "token": self._tokens,
            "pos": self._positions,
            "n_seq_id": self._counts,
            "seq_id": self._pointers,
            "logits": self._outputs,
        }
        kinds = dict(lib.llama_batch._fields_)
        for field, array in arrays.items():
            setattr(self._batch, field, ctypes.cast(array.ctypes.data, kinds[field]))
        self._batch.embd = None

    def decode(self, context: Any, plan: RowOrder, padding_token: int) -> int:
        """Fills the rows of ``plan``, in the order of sequence ids, and calls ``llama_decode``: its
        result.
        """
        tokens: list[int] = []
        positions: list[int] = []
        sequences: list[int] = []
        outputs: list[int] = []
        paddings = iter(plan.paddings)
        padding = next(paddings, None)
        for chunk in plan.chunks:
            while padding is not None and padding.sequence_id < chunk.sequence_id:
                tokens.append(padding_token)
                positions.append(padding.position)
                sequences.append(padding.sequence_id)
                outputs.append(0)
                padding = next(paddings, None)
            count = len(chunk.tokens)
            tokens.extend(chunk.tokens)
            positions.extend(range(chunk.position, chunk.position + count))
            sequences.extend(repeat(chunk.sequence_id, count))
            outputs.extend(repeat(0, count - 1))
            outputs.append(int(chunk.sample != SampleMode.NONE))
        n_rows = plan.n_rows
        self._tokens[:n_rows] = tokens
        self._positions[:n_rows] = positions
        self._sequences[:n_rows] = sequences
        self._outputs[:n_rows] = outputs
        self._batch.n_tokens = n_rows
        return int(self._lib.llama_decode(context, self._batch))

    def logits(self, context: Any, n_outputs: int, n_vocab: int) -> npt.NDArray[np.float32]:
        """The logits of the rows that were asked for, in batch order: float32, (n_outputs, n_vocab).

        A view of llama.cpp's own buffer, valid until the next decode call.
        """
        pointer = self._lib.llama_get_logits(context)
        address = ctypes.cast(pointer, ctypes.c_void_p).value
        assert address is not None
        buffer: Any = (ctypes.c_float * (n_outputs * n_vocab)).from_address(address)
        rows: npt.NDArray[np.float32] = np.frombuffer(buffer, np.float32).reshape(n_outputs, n_vocab)
        return rows
