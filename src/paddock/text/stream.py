"""From sampled tokens to text that may be shown: detokenizer, UTF-8 and stop strings in one.

    assembler = TextAssembler(table, stops=("\\n\\n",), prompt=prompt_tokens)
    for each sampled token that is not an end-of-generation token:
        delta = assembler.feed(token, logprob, top)     # AssembledDelta or None
        if assembler.stopped is not None: end the request, finish reason "stop"
    last = assembler.finish()                           # AssembledDelta or None

Which token belongs to which delta: a token is reported with the delta that brings the last character to
which it contributed (so that the tokens of one split emoji come with the emoji). A delta may bring text and
no token (the rest of the token's text is held back), or a token and no text (a control token). Every token
that was fed is reported exactly once and in order, those whose text a stop string swallowed with the delta
of the stop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import attrs

from paddock.text.detokenizer import IncrementalDetokenizer
from paddock.text.pieces import PieceTable
from paddock.text.stops import StopScanner
from paddock.text.utf8 import IncrementalDecoder

__all__ = ["AssembledDelta", "TextAssembler", "TokenLogprob"]


@attrs.frozen
class TokenLogprob:
    """The log-probability (natural logarithm) of a token that was generated, and of its best alternatives."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@attrs.frozen
class AssembledDelta:
    """Text that has become certain, with the tokens that it completes.

    ``logprobs`` has one row for each of ``token_ids`` that was fed with a log-probability; None when there
    is none.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None


@attrs.define(eq=False)
class _Pending:
    token_id: int
    logprob: TokenLogprob | None
    end: int
    """How many characters must have been emitted until the token's text is complete."""


class TextAssembler:
    """One request's text. Every call costs time proportional to the token's text, whatever came before.

    ``stops`` are searched in the generated text alone. ``skip_special`` leaves control tokens without text.
    ``prompt`` are all tokens before the first one fed: they decide the whitespace at the border (see
    ``detokenizer.py``), for which only the last one or two are looked at.
    """

    def __init__(
        self,
        table: PieceTable,
        stops: Iterable[str] = (),
        *,
        skip_special: bool = True,
        prompt: Sequence[int] = (),
    ) -> None:
        self._detokenizer = IncrementalDetokenizer(table, skip_special=skip_special, prompt=prompt)
        self._decoder = IncrementalDecoder()
        self._scanner = StopScanner(stops)
        self._pending: deque[_Pending] = deque()
        self._decoded = 0
        self._emitted = 0
        self._finished = False

    @property
    def stopped(self) -> str | None:
        """The stop string that was found; no token may be fed after that."""
        return self._scanner.stopped

    def feed(
        self,
        token: int,
        logprob: float | None = None,
        top: Iterable[tuple[int, float]] | None = None,
    ) -> AssembledDelta | None:
        """Takes the next generated token. None when nothing became certain.

        RuntimeError after a stop or after ``finish``; IndexError for a token outside the vocabulary.
        """
        if self._finished or self.stopped is not None:
            raise RuntimeError("the text has ended; no token can follow")
        text = self._decoder.feed(self._detokenizer.feed(token))
        self._decoded += len(text)
        row = None if logprob is None else TokenLogprob(token, logprob, tuple(top or ()))
        # Bytes of an unfinished character will be one character, bytes that the detokenizer holds one each.
        end = self._decoded + bool(self._decoder.pending) + self._detokenizer.held
        # A space that was removed meanwhile brings the ends of earlier tokens down with it.
        for earlier in reversed(self._pending):
            if earlier.end <= end:
                break
            earlier.end = end
        self._pending.append(_Pending(token, row, end))
        emit, stopped = self._scanner.feed(text)
        return self._delta(emit, everything=stopped is not None)

    def finish(self) -> AssembledDelta | None:
        """Ends the text: brings what was held back, and every token not yet reported. None when there is
        neither.

        An unfinished character comes out as U+FFFD. May itself find a stop string. A second call returns
        None.
        """
        if self._finished or self.stopped is not None:
            self._finished = True
            return None
        self._finished = True
        text = self._decoder.feed(self._detokenizer.finish()) + self._decoder.finish()
        emit, _ = self._scanner.feed(text)
        return self._delta(emit + self._scanner.finish(), everything=True)

    def _delta(self, text: str, *, everything: bool) -> AssembledDelta | None:
        self._emitted += len(text)
        token_ids: list[int] = []
        rows: list[TokenLogprob] = []
        pending = self._pending
        while pending and (everything or pending[0].end <= self._emitted):
            token = pending.popleft()
            token_ids.append(token.token_id)
            if token.logprob is not None:
                rows.append(token.logprob)
        if not text and not token_ids:
            return None
        return AssembledDelta(text, tuple(token_ids), tuple(rows) if rows else None)
