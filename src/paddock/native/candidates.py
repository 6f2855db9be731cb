"""The candidate array that llama.cpp's samplers work on: one buffer, reused for every row of a context."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Candidates"]

_LAYOUT = np.dtype([("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])  # llama_token_data


class Candidates:
    """``llama_token_data_array`` over a numpy table of ``n_vocab`` rows.

    Samplers sort, cut and move the window that they look at; :attr:`ids`, :attr:`logits` and
    :attr:`probabilities` are views of that window, valid until the next sampler runs.
    """

    def __init__(self, lib: Any, n_vocab: int) -> None:
        self._table = np.zeros(n_vocab, _LAYOUT)
        self._ids = self._table["id"]
        self._logits = self._table["logit"]
        self._arange = np.arange(n_vocab, dtype=np.int32)
        self._base = self._table.ctypes.data
        self._first = ctypes.cast(self._base, ctypes.POINTER(lib.llama_token_data))
        self.array = lib.llama_token_data_array(self._first, n_vocab, -1, False)
        self.pointer = ctypes.pointer(self.array)

    def fill(self, row: npt.NDArray[np.float32]) -> None:
        """All tokens in order of their ids, with the logits of ``row``."""
        self._ids[:] = self._arange
        self._logits[:] = row
        array = self.array
        array.data = self._first
        array.size = len(self._table)
        array.selected = -1
        array.sorted = False

    @property
    def _window(self) -> npt.NDArray[np.void]:
        start = (ctypes.addressof(self.array.data.contents) - self._base) // _LAYOUT.itemsize
        return self._table[start : start + self.array.size]

    @property
    def ids(self) -> npt.NDArray[np.int32]:
        return self._window["id"]

    @property
    def logits(self) -> npt.NDArray[np.float32]:
        return self._window["logit"]

    @property
    def probabilities(self) -> npt.NDArray[np.float32]:
        return self._window["p"]

    def keep(self, mask: npt.NDArray[np.bool_]) -> None:
        """Drops the candidates outside ``mask``, in place, order kept."""
        window = self._window
        kept = window[mask]
        window[: len(kept)] = kept
        self.array.size = len(kept)

    def selected(self) -> tuple[int, float, float]:
        """Id, logit and probability of the token that the last sampler selected; id -1 for none."""
        array = self.array
        if not 0 <= array.selected < array.size:
            return -1, float("-inf"), 0.0
        chosen = array.data[array.selected]
        return chosen.id, chosen.logit, chosen.p
