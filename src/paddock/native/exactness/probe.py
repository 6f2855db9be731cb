"""The probe: does the recipe keep what it claims, for this model, on this machine?

One conversation with fixed tokens is computed alone, and again in every way on which the recipe claims that logits do
not depend. Logits and KV cells are compared byte by byte; the cells because they hold what came out of every layer for
every token. First with a short prompt, where a check costs little; then with one of more than 256 tokens, from where on
llama.cpp's attention uses other kernels; as far as there is time.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import attrs
import numpy as np

from paddock.errors import PaddockError
from paddock.native.context import Context
from paddock.native.exactness.certificate import CheckResult
from paddock.native.exactness.conversation import Computed, Conversation, Rules, Runner, random_sizes

__all__ = ["ProbeFindings", "probe_context"]

_SHORT_PROMPT = 24
_LONG_PROMPT = 290
"""With the reply beyond 256 tokens, hence attention over 512 cells."""
_REPLY = 6
_RUNS_OF_LONG = 5
"""About so many times the long prompt is computed."""


class _OutOfTime(Exception):
    pass


@attrs.frozen
class ProbeFindings:
    """What :func:`probe_context` found; ``thread_counts`` gave the same bytes."""

    checks: tuple[CheckResult, ...]
    thread_counts: tuple[int, ...]
    seconds: float


class _Probe:
    def __init__(
        self, context: Context, n_vocab: int, rules: Rules, seconds: float, stopping: Callable[[], bool], seed: int
    ) -> None:
        self._context = context
        self._rules = rules
        self._seed = seed
        self._started = time.monotonic()
        self._end = self._started + seconds
        self._stopping = stopping
        self._runner = Runner(context, n_vocab, rules, self._check_time)
        self._threads = context.parameters.n_threads
        self._others = self._threads - 1 if self._threads > 1 else 2
        names = ["save_restore", "sequence_id", "neighbours", "chunks"]
        names += ["token_by_token", "reply_as_prompt"] if rules.tokens_alone else []
        self._results = {name: CheckResult(name, "not_run", 0, "there was no time") for name in [*names, "threads"]}

    def _check_time(self) -> None:
        if self._stopping() or time.monotonic() > self._end:
            raise _OutOfTime

    def run(self) -> ProbeFindings:
        if self._runner.n_seq_max == 1:
            for name in ("sequence_id", "neighbours"):
                self._results[name] = CheckResult(name, "not_applicable", 0, "there is one sequence")
        room = min(self._runner.cells, self._context.parameters.n_ctx) - _REPLY
        short = min(room, max(_SHORT_PROMPT, 3 * self._rules.minimum_chunk))
        try:
            row_seconds, rest_seconds = self._compare_all(short, everything=True)
            left = self._end - time.monotonic()
            long = min(room, _LONG_PROMPT, int((left / _RUNS_OF_LONG - rest_seconds) / row_seconds))
            if long > short:
                self._compare_all(long, everything=False)
        except _OutOfTime:
            pass
        finally:
            self._runner.close()
        same = {self._threads, self._others} if self._results["threads"].outcome == "passed" else {self._threads}
        return ProbeFindings(tuple(self._results.values()), tuple(sorted(same)), time.monotonic() - self._started)

    def _compare_all(self, n_prompt: int, *, everything: bool) -> tuple[float, float]:
        """Every check with a prompt of this length; what costs a prompt and shows nothing new in a long one is left
        out unless ``everything``. Returns the seconds that a row of the prompt took, and the rest of its run."""
        runner = self._runner
        talk = Conversation.drawn(self._seed + n_prompt, runner.n_vocab, n_prompt, _REPLY)
        last = runner.n_seq_max - 1
        began = time.monotonic()
        expected, moved = runner.moving(talk, name=last)
        row_seconds = max(runner.row_seconds, 1e-9)
        rest_seconds = time.monotonic() - began - n_prompt * row_seconds
        self._judge("save_restore", talk, expected, lambda: moved)
        other = runner.n_seq_max // 2
        self._judge(
            "neighbours", talk, expected, lambda: runner.beside_others(talk, name=other, seed=self._seed, most=100)
        )
        if self._results["neighbours"].outcome == "passed":
            self._results["sequence_id"] = CheckResult("sequence_id", "passed", len(talk))  # it had another id there
        else:  # to tell which of the two it was
            self._judge("sequence_id", talk, expected, lambda: runner.alone(talk, name=last))
        self._judge("chunks", talk, expected, lambda: runner.alone(talk, sizes=self._chunk_sizes(n_prompt)))
        if self._rules.tokens_alone:
            self._judge("reply_as_prompt", talk, expected, lambda: runner.as_prompt(talk))
            if everything:
                self._judge("token_by_token", talk, expected, lambda: runner.alone(talk, sizes=[1] * n_prompt))
            elif self._results["reply_as_prompt"].outcome == "passed" == self._results["token_by_token"].outcome:
                # Single rows and prompt rows of the same positions were compared there.
                self._results["token_by_token"] = CheckResult("token_by_token", "passed", len(talk))
        self._judge("threads", talk, expected, lambda: self._with_other_threads(talk))
        return row_seconds, rest_seconds

    def _chunk_sizes(self, n_prompt: int) -> list[int]:
        """Random sizes, and at the end the smallest."""
        least = self._rules.minimum_chunk
        tail = min(n_prompt, 3 * least + least // 2)
        if n_prompt - tail < least:
            return random_sizes(random.Random(n_prompt), n_prompt, least, least)
        draw = random.Random(n_prompt)
        return [*random_sizes(draw, n_prompt - tail, least, 100), *random_sizes(draw, tail, least, least)]

    def _with_other_threads(self, talk: Conversation) -> Computed:
        self._context.set_threads(self._others)
        try:
            return self._runner.alone(talk)
        finally:
            self._context.set_threads(self._threads)

    def _judge(self, name: str, talk: Conversation, expected: Computed, compute: Callable[[], Computed]) -> None:
        """Runs a check that has not failed yet. What has passed for a shorter context stays passed for that when there
        is no time for this one."""
        if self._results[name].outcome in ("failed", "not_applicable"):
            return
        try:
            detail = _difference(talk, compute(), expected)
        except _OutOfTime:
            raise
        except PaddockError as error:
            self._runner.close()
            detail = str(error)
        self._results[name] = CheckResult(name, "failed" if detail else "passed", len(talk), detail)


def _difference(talk: Conversation, computed: Computed, expected: Computed) -> str:
    """What is not the same, in words; "" where everything is."""
    skipped = len(expected.rows) - len(computed.rows)  # a run that gives the last rows alone
    for index, (row, wanted) in enumerate(zip(computed.rows, expected.rows[skipped:], strict=True), start=skipped):
        if row != wanted:
            at = "the prompt's last token" if index == 0 else f"token {index} of the reply"
            return (
                f"other logits after {at}, {len(talk.prompt) + index} tokens; "
                f"largest difference {_largest_difference(row, wanted):.3g}"
            )
    if computed.cells is not None and expected.cells is not None:
        count = int(np.count_nonzero(computed.cells != expected.cells))
        if count:
            return f"the same logits, but {count} of {len(expected.cells)} bytes in the KV cells differ"
    return ""


def _largest_difference(left: bytes, right: bytes) -> float:
    """Of two logits rows; NaN where one of them holds it."""
    return float(np.abs(np.frombuffer(left, np.float32) - np.frombuffer(right, np.float32)).max())


def probe_context(
    context: Context,
    n_vocab: int,
    rules: Rules,
    *,
    seconds: float,
    stopping: Callable[[], bool] = lambda: False,
    seed: int = 0,
) -> ProbeFindings:
    """Runs every check on ``context``, which has no open sequence and is as before afterwards.

    Takes about ``seconds`` at most; what there is no time for is reported as not run, or for the shorter context
    alone. ``stopping`` ends it early. To be called by the context's own thread. Raises
    :class:`paddock.errors.BatchError` when llama.cpp fails.
    """
    return _Probe(context, n_vocab, rules, seconds, stopping, seed).run()
