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
    """Reusable memory for batches of at most ``n_batch`` rows. One thread.

    ``pair_outputs``: logits are computed for two rows at least wherever they are computed for one, since llama.cpp
    takes the rows without them out before its last matrices.
    """

    def __init__(self, lib: Any, n_batch: int, *, pair_outputs: bool = False) -> None:
        self._lib = lib
        self._pair_outputs = pair_outputs
        self._wanted: list[int] = []  # of the rows with logits, those that were asked for
        self._n_outputs = 0
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
        pair = self._pair_outputs and any(chunk.sample != SampleMode.NONE for chunk in plan.chunks)
        wanted: list[int] = []  # rows of the batch
        paddings = iter(plan.paddings)
        padding = next(paddings, None)
        for chunk in plan.chunks:
            while padding is not None and padding.sequence_id < chunk.sequence_id:
                tokens.append(padding_token)
                positions.append(padding.position)
                sequences.append(padding.sequence_id)
                outputs.append(int(pair))
                padding = next(paddings, None)
            count = len(chunk.tokens)
            tokens.extend(chunk.tokens)
            positions.extend(range(chunk.position, chunk.position + count))
            sequences.extend(repeat(chunk.sequence_id, count))
            outputs.extend(repeat(0, count - 1))
            outputs.append(int(pair or chunk.sample != SampleMode.NONE))
            if pair and count > 1:
                outputs[-2] = 1
            if chunk.sample != SampleMode.NONE:
                wanted.append(len(outputs) - 1)
        # Paddings behind the last chunk:
        while padding is not None:
            tokens.append(padding_token)
            positions.append(padding.position)
            sequences.append(padding.sequence_id)
            outputs.append(int(pair))
            padding = next(paddings, None)
        n_rows = plan.n_rows
        self._tokens[:n_rows] = tokens
        self._positions[:n_rows] = positions
        self._sequences[:n_rows] = sequences
        self._outputs[:n_rows] = outputs
        self._batch.n_tokens = n_rows
        self._n_outputs = sum(outputs)
        self._wanted = [sum(outputs[:row]) for row in wanted] if pair else list(range(len(wanted)))
        return int(self._lib.llama_decode(context, self._batch))

    def logits(self, context: Any, n_vocab: int) -> list[npt.NDArray[np.float32]]:
        """The logits of the rows that were asked for in the last call, in batch order: each float32, (n_vocab,).

        Views of llama.cpp's own buffer, valid until the next decode call.
        """
        pointer = self._lib.llama_get_logits(context)
        address = ctypes.cast(pointer, ctypes.c_void_p).value
        assert address is not None
        buffer: Any = (ctypes.c_float * (self._n_outputs * n_vocab)).from_address(address)
        rows: npt.NDArray[np.float32] = np.frombuffer(buffer, np.float32).reshape(self._n_outputs, n_vocab)
        return [rows[index] for index in self._wanted]
