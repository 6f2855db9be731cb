"""The probe: does the recipe keep what it claims, for this model, on this machine?

One conversation with fixed tokens is computed alone, and again in every way on which the recipe claims that logits do
not depend. The rows are compared byte by byte. First with a short prompt, where a check costs little; then with one of
more than 256 tokens, from where on llama.cpp's attention uses other kernels; as far as there is time.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

import attrs

from paddock.errors import DecodeFailed
from paddock.native.context import Context
from paddock.native.exactness.certificate import CheckResult
from paddock.native.exactness.conversation import Conversation, Rules, Runner, largest_difference, random_sizes

__all__ = ["ProbeFindings", "probe_context"]

_SHORT_PROMPT = 24
_LONG_PROMPT = 290
"""With the reply beyond 256 tokens, hence attention over 512 cells."""
_REPLY = 6
_OTHER_THREADS = 2


class _OutOfTime(Exception):
    pass


@attrs.frozen
class ProbeFindings:
    """``rows`` compared, ``thread_counts`` that gave the same bytes."""

    checks: tuple[CheckResult, ...]
    thread_counts: tuple[int, ...]
    seconds: float


Variant = Callable[[Runner, Conversation], list[bytes]]


def _sequence_id(runner: Runner, talk: Conversation) -> list[bytes]:
    return runner.alone(talk, name=runner.n_seq_max - 1)


def _neighbours(runner: Runner, talk: Conversation) -> list[bytes]:
    return runner.beside_others(talk, name=runner.n_seq_max // 2, seed=len(talk), most=100)


def _chunks(runner: Runner, talk: Conversation) -> list[bytes]:
    sizes = random_sizes(random.Random(len(talk)), len(talk.prompt), runner.rules.minimum_chunk, 100)
    return runner.alone(talk, sizes=sizes)


def _smallest_chunks(runner: Runner, talk: Conversation) -> list[bytes]:
    """Only at the end: a long prompt in the smallest chunks would take long."""
    least = runner.rules.minimum_chunk
    tail = min(len(talk.prompt), 3 * least + least // 2)
    sizes = [*runner.whole_sizes(len(talk.prompt) - tail)] if len(talk.prompt) > tail else []
    return runner.alone(talk, sizes=[*sizes, *random_sizes(random.Random(0), tail, least, least)])


def _save_restore(runner: Runner, talk: Conversation) -> list[bytes]:
    return runner.moved(talk, name=runner.n_seq_max - 1)


def _token_by_token(runner: Runner, talk: Conversation) -> list[bytes]:
    tail = min(len(talk.prompt) - 1, _SHORT_PROMPT - 1)
    return runner.alone(talk, sizes=[len(talk.prompt) - tail, *[1] * tail])


def _reply_as_prompt(runner: Runner, talk: Conversation) -> list[bytes]:
    return runner.as_prompt(talk)


class _Probe:
    def __init__(
        self, context: Context, n_vocab: int, rules: Rules, seconds: float, stopping: Callable[[], bool], seed: int
    ) -> None:
        self._context = context
        self._seed = seed
        self._started = time.monotonic()
        self._end = self._started + seconds
        self._stopping = stopping
        self._runner = Runner(context, n_vocab, rules, self._check_time)
        self._threads = context.parameters.n_threads
        variants: dict[str, Variant] = {"sequence_id": _sequence_id, "neighbours": _neighbours, "chunks": _chunks}
        variants["smallest_chunks"] = _smallest_chunks
        if rules.tokens_alone:
            variants |= {"token_by_token": _token_by_token, "reply_as_prompt": _reply_as_prompt}
        variants |= {"save_restore": _save_restore, "threads": self._other_threads}
        self._variants = variants
        self._results: dict[str, CheckResult] = {}

    def _check_time(self) -> None:
        if self._stopping() or time.monotonic() > self._end:
            raise _OutOfTime

    def run(self) -> ProbeFindings:
        for n_prompt in self._depths():
            self._compare_all(n_prompt)
        for name in self._variants:
            self._results.setdefault(name, CheckResult(name, "not_run", 0, "the probe's time was up"))
        checks = tuple(self._results[name] for name in self._variants)
        same_threads = {self._threads}
        if self._results["threads"].outcome == "passed":
            same_threads.add(self._other_count())
        return ProbeFindings(checks, tuple(sorted(same_threads)), time.monotonic() - self._started)

    def _depths(self) -> list[int]:
        room = min(self._runner.cells, self._context.parameters.n_ctx) - _REPLY
        least = self._runner.rules.minimum_chunk
        return sorted({min(room, max(_SHORT_PROMPT, 3 * least)), min(room, _LONG_PROMPT)})

    def _compare_all(self, n_prompt: int) -> None:
        talk = Conversation.drawn(self._seed + n_prompt, self._runner.n_vocab, n_prompt, _REPLY)
        try:
            began = time.monotonic()
            expected = self._runner.alone(talk)
            took = time.monotonic() - began
            for name, variant in self._variants.items():
                known = self._results.get(name)
                if known is not None and known.outcome != "passed":
                    continue
                if time.monotonic() + 1.5 * took > self._end:
                    continue  # what has passed at a shorter context stays said of that
                self._results[name] = self._compare(name, variant, talk, expected)
        except _OutOfTime:
            pass
        finally:
            self._runner.close()

    def _compare(self, name: str, variant: Variant, talk: Conversation, expected: Sequence[bytes]) -> CheckResult:
        alone = self._runner.n_seq_max == 1
        if alone and name in ("sequence_id", "neighbours"):
            return CheckResult(name, "not_applicable", 0, "there is one sequence")
        try:
            rows = variant(self._runner, talk)
        except DecodeFailed as error:
            self._runner.close()
            return CheckResult(name, "failed", len(talk), str(error))
        skipped = len(expected) - len(rows)  # a variant that gives the last rows alone
        for index, (row, wanted) in enumerate(zip(rows, expected[skipped:], strict=True), start=skipped):
            if row != wanted:
                at = "the prompt's last token" if index == 0 else f"token {index} of the reply"
                largest = largest_difference(row, wanted)
                return CheckResult(
                    name, "failed", len(talk.prompt) + index,
                    f"other logits after {at}, {len(talk.prompt) + index} tokens; largest difference {largest:.3g}",
                )  # fmt: skip
        return CheckResult(name, "passed", len(talk))

    def _other_count(self) -> int:
        return 1 if self._threads > 1 else _OTHER_THREADS

    def _other_threads(self, runner: Runner, talk: Conversation) -> list[bytes]:
        self._context.set_threads(self._other_count())
        try:
            return runner.alone(talk)
        finally:
            self._context.set_threads(self._threads)


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
