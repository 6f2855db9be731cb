"""From documents to batches: tokenized once into flat arrays, then grouped by length without loss of randomness.

A step takes the next documents in corpus order until it has its number of tokens, sorts them by length and pads them in
a few groups. So no document sees another, positions start at 0 as they do in use, and every step is a fair sample.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tools.cria.corpus import documents
from tools.cria.tokenizer import Tokenizer

LONGEST = 1024


@dataclass(frozen=True)
class Encoded:
    """Documents end to end: `tokens` uint16, `trained` bool (the token counts in the loss), `starts` [documents + 1]."""

    tokens: npt.NDArray[np.uint16]
    trained: npt.NDArray[np.bool_]
    starts: npt.NDArray[np.int64]


def _encode_part(task: tuple[str, int, int, int]) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.bool_], list[int]]:
    path, seed, start, stop = task
    tokenizer = Tokenizer(Path(path))
    tokens: list[int] = []
    trained: list[bool] = []
    lengths: list[int] = []
    for segments in documents(seed, start, stop):
        before = len(tokens)
        for text, counts in segments:
            ids = tokenizer.encode(text)
            tokens += ids
            trained += [counts] * len(ids)
        del tokens[before + LONGEST + 1 :], trained[before + LONGEST + 1 :]
        lengths.append(len(tokens) - before)
    return np.array(tokens, np.uint16), np.array(trained, np.bool_), lengths


def encode(tokenizer: Path, seed: int, count: int, processes: int = 2) -> Encoded:
    """Tokenize the first `count` documents of the corpus with this seed."""
    part = 2_000
    tasks = [(str(tokenizer), seed, start, min(start + part, count)) for start in range(0, count, part)]
    with multiprocessing.Pool(processes) as pool:
        parts = pool.map(_encode_part, tasks)
    lengths = np.concatenate([np.array(lengths, np.int64) for _, _, lengths in parts])
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return Encoded(np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]), starts)


Group = tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]


def steps(encoded: Encoded, step_tokens: int, group_tokens: int) -> Iterator[list[Group]]:
    """Steps of about `step_tokens` tokens, each a list of padded groups (tokens [n, length], trained [n, length])."""
    waiting: list[int] = []
    total = 0
    for index in range(len(encoded.starts) - 1):
        waiting.append(index)
        total += int(encoded.starts[index + 1] - encoded.starts[index])
        if total >= step_tokens:
            yield _grouped(encoded, waiting, group_tokens)
            waiting, total = [], 0


def _grouped(encoded: Encoded, indices: list[int], group_tokens: int) -> list[Group]:
    spans = sorted((int(encoded.starts[i + 1] - encoded.starts[i]), int(encoded.starts[i])) for i in indices)
    groups: list[Group] = []
    current: list[tuple[int, int]] = []
    for length, start in spans:
        if current and length * (len(current) + 1) > group_tokens:
            groups.append(_padded(encoded, current))
            current = []
        current.append((length, start))
    groups.append(_padded(encoded, current))
    return groups


def _padded(encoded: Encoded, spans: list[tuple[int, int]]) -> Group:
    longest = spans[-1][0]
    tokens = np.zeros((len(spans), longest), np.int64)
    trained = np.zeros((len(spans), longest), np.bool_)
    for row, (length, start) in enumerate(spans):
        tokens[row, :length] = encoded.tokens[start : start + length]
        trained[row, :length] = encoded.trained[start : start + length]
    return tokens, trained
