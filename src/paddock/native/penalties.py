"""Repeat, frequency and presence penalties over the last tokens.

The arithmetic is llama.cpp's (``llama_sampler_penalties_apply``), but only the tokens seen are touched: its
own sampler looks every candidate up in a hash map, which costs more than the rest of the chain together.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from paddock.sampling import SamplingParameters

__all__ = ["Penalties"]


class Penalties:
    """Counts the last ``window`` tokens, prompt included, and penalises their logits."""

    def __init__(self, parameters: SamplingParameters, window: int, n_vocab: int) -> None:
        self._repeat = np.float32(parameters.repeat_penalty)
        self._frequency = np.float32(parameters.frequency_penalty)
        self._presence = np.float32(parameters.presence_penalty)
        self._n_vocab = n_vocab
        self._window: deque[int] = deque(maxlen=window)
        self._counts: Counter[int] = Counter()

    def accept(self, token: int) -> None:
        window = self._window
        if len(window) == window.maxlen:
            oldest = window[0]
            self._counts[oldest] -= 1
            if not self._counts[oldest]:
                del self._counts[oldest]
        window.append(token)
        self._counts[token] += 1

    def replay(self, history: Iterable[int]) -> None:
        """Accepts a history; what has left the window again leaves no trace."""
        self._window.extend(history)
        self._counts = Counter(self._window)

    def apply(self, ids: npt.NDArray[np.int32], logits: npt.NDArray[np.float32]) -> None:
        """Penalises in place the candidates ``ids`` (shape (n,), any order) with their ``logits``."""
        seen = np.fromiter(self._counts.keys(), np.int64, len(self._counts))
        counts = np.fromiter(self._counts.values(), np.float32, len(self._counts))
        if len(ids) == self._n_vocab and int(ids[0]) == 0 and int(ids[-1]) == self._n_vocab - 1:
            at = seen  # the whole vocabulary in the order of its ids
        else:
            order = np.argsort(seen)
            seen, counts = seen[order], counts[order]
            place = np.minimum(np.searchsorted(seen, ids), max(len(seen) - 1, 0))
            at = np.flatnonzero(seen[place] == ids) if len(seen) else seen
            counts = counts[place[at]]
        values = logits[at]
        with np.errstate(over="ignore", invalid="ignore"):  # infinities are found before the draw
            values = np.where(values <= 0, values * self._repeat, values / self._repeat)
            logits[at] = values - (counts * self._frequency + self._presence)
