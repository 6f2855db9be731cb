"""How fast a way of computing is: tokens per second of prompts and of generated ones, in a short and a long context."""

from __future__ import annotations

import random
import time

from paddock.native.batch import Chunk, SampleMode
from paddock.native.context import Context
from paddock.native.exactness.conversation import Rules
from paddock.native.state.layout import Bytes
from paddock.sampling import SamplingParameters

__all__ = ["CostMeter"]

_GENERATION = 1
_SAMPLING = SamplingParameters(temperature=0.0, seed=0)
_STEP_SECONDS = 0.4
"""Decode steps are repeated for about so long."""


class CostMeter:
    """Measures on ``context``, which serves nobody else meanwhile, under the schedule of ``rules``."""

    def __init__(self, context: Context, n_vocab: int, rules: Rules) -> None:
        self._context = context
        self._rules = rules
        sizes = context.sizes()
        self._n_batch = sizes.n_batch
        self._n_seq_max = sizes.n_seq_max
        draw = random.Random(0)
        self._tokens = [draw.randrange(n_vocab) for _ in range(sizes.n_ctx_seq)]
        self._states: dict[int, Bytes] = {}

    def prefill(self, n_tokens: int, depth: int) -> float:
        """Tokens per second of a prompt of ``n_tokens`` behind ``depth`` tokens that are there already."""
        self._put(0, depth)
        began = time.perf_counter()
        self._compute(0, n_tokens)
        seconds = time.perf_counter() - began
        self._clear()
        return n_tokens / seconds

    def decode(self, rows: int, depth: int) -> float:
        """Tokens per second of ``rows`` sequences together, each one token a step, from ``depth`` tokens on."""
        for name in range(rows):
            self._put(name, depth)
        self._step(rows)  # the first one may have to reserve memory
        steps, began = 0, time.perf_counter()
        while time.perf_counter() - began < _STEP_SECONDS and steps < 60:
            self._step(rows)
            steps += 1
        seconds = time.perf_counter() - began
        self._clear()
        return rows * steps / seconds

    def _step(self, rows: int) -> None:
        cap = self._rules.decode_row_cap or rows
        for first in range(0, rows, cap):
            names = range(first, min(first + cap, rows))
            self._context.decode_and_sample_batch([
                Chunk(name, _GENERATION, self._context.position(name), [self._tokens[name]], SampleMode.TOKEN)
                for name in names
            ])  # fmt: skip

    def _put(self, name: int, depth: int) -> None:
        """A sequence that holds ``depth`` tokens; they are computed once and restored from then on."""
        context = self._context
        context.open_sequence(name, _GENERATION, _SAMPLING)
        if depth == 0:
            return
        if depth not in self._states:
            self._compute(name, depth)
            self._states[depth] = context.save_state(name, _GENERATION)
        else:
            context.restore_state(name, _GENERATION, self._states[depth], depth)

    def _compute(self, name: int, n_tokens: int) -> None:
        at = self._context.position(name)
        end = at + n_tokens
        while at < end:
            size = min(self._n_batch, end - at)
            if 0 < end - at - size < self._rules.minimum_chunk:
                size = max(self._rules.minimum_chunk, size - self._rules.minimum_chunk)
            mode = SampleMode.TOKEN if at + size == end else SampleMode.NONE
            chunk = Chunk(name, _GENERATION, at, self._tokens[at : at + size], mode)
            self._context.decode_and_sample_batch([chunk])
            at += size

    def _clear(self) -> None:
        for name in range(self._n_seq_max):
            self._context.release_sequence(name, _GENERATION)
