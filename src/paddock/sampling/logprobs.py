"""Log-probabilities of a logits row."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["log_probabilities"]


def log_probabilities(
    row: npt.NDArray[np.float32], token: int, alternatives: int
) -> tuple[float, list[tuple[int, float]]]:
    """The natural logarithm of ``token``'s probability, and the ``alternatives`` most probable tokens with
    theirs.

    ``row``: float32, shape (n_vocab,), raw logits as the model gave them: before biases, penalties,
    temperature and truncation. log-softmax with the sum in float64: x - max - log(sum(exp(x - max))).
    Alternatives stand by descending logit, equal ones by ascending id; -inf logits give -inf.
    """
    highest = float(row.max())
    with np.errstate(over="ignore"):  # a logit far enough below has the probability 0
        total = float(np.exp(row - np.float32(highest)).sum(dtype=np.float64))
    shift = highest + math.log(total)
    top: list[tuple[int, float]] = []
    if alternatives:
        count = min(alternatives, len(row))
        threshold = row[np.argpartition(row, -count)[-count:]].min()
        candidates = np.flatnonzero(row >= threshold)
        order = np.lexsort((candidates, -row[candidates]))[:count]
        top = [(int(index), float(row[index]) - shift) for index in candidates[order]]
    return float(row[token]) - shift, top
