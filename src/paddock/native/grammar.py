"""Which tokens a grammar allows next: llguidance's matchers, one for each sequence.

A matcher's state follows from the grammar and the tokens consumed, so that a sequence can be taken up anywhere by
consuming its tokens again. llguidance answers with errors where llama.cpp's own grammars end the process; its calls run
on threads of their own (see ``grammar_thread.py``), the next mask while the next row is computed.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from paddock.errors import InvalidParameter, WorkerBusy
from paddock.native.grammar_thread import GrammarJob, GrammarThread
from paddock.sampling.grammars import Grammar
from paddock.text.pieces import PieceTable

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

__all__ = ["COMPILE_SECONDS", "MASK_SECONDS", "GrammarLibrary", "GrammarMatcher", "MatchFailed"]

COMPILE_SECONDS = 2.0
"""Processor time that one grammar may take until its first mask is known."""

MASK_SECONDS = 0.1
"""Processor time that one token may take; so long at most a row waits for its mask, and the batch with it."""

_NAME = "reply"
_MAX_ABANDONED = 4
_KEPT = 16
_WHITESPACE = r"[ \t\n\r]{0,64}"
"""Between JSON tokens. Bounded: a model that likes blanks would never come to an end."""

_LIMITS = {
    "initial_lexer_fuel": 200_000,
    "step_lexer_fuel": 50_000,
    "step_max_items": 20_000,
    "max_items_in_row": 1_000,
    "max_lexer_states": 20_000,
    "max_grammar_size": 50_000,
    "verbose_errors": False,
}
"""About a fifth of llguidance's defaults."""

Mask = npt.NDArray[np.bool_]


class MatchFailed(Exception):
    """The grammar cannot go on; the message says why."""


class Vocabulary(Protocol):
    n_vocab: int

    def piece_table(self) -> PieceTable: ...


class GrammarLibrary:
    """The grammars of one model: its tokens as llguidance sees them, and grammars that have been compiled.

    Any thread. Nothing is made before the first grammar comes.
    """

    def __init__(self, model: Vocabulary) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._tokenizer_lock = threading.Lock()
        self._tokenizer: LLTokenizer | None = None
        self._prepared: OrderedDict[Grammar, LLMatcher] = OrderedDict()
        self._abandoned: list[GrammarThread] = []

    def prepare(self, grammar: Grammar) -> None:
        """Compiles ``grammar`` and keeps it, so that a sequence that is opened with it need not. Blocks.

        Raises :class:`paddock.errors.InvalidParameter` for one that does not compile, allows no token at all or takes
        longer than :data:`COMPILE_SECONDS`, and :class:`paddock.errors.WorkerBusy` while several such still run.
        """
        with self._lock:
            self._abandoned = [thread for thread in self._abandoned if thread.alive]
            if grammar in self._prepared:
                return
            if len(self._abandoned) >= _MAX_ABANDONED:
                raise WorkerBusy("grammars that take too long", _MAX_ABANDONED)
        thread = GrammarThread()
        job = thread.submit(lambda: self.compiled(grammar))
        thread.stop()
        if not job.wait(COMPILE_SECONDS):
            with self._lock:
                self._abandoned.append(thread)
            raise refused(grammar, f"a grammar that is compiled within {COMPILE_SECONDS:g} s; make it simpler")
        try:
            job.result()
        except MatchFailed as error:
            raise refused(grammar, str(error)) from None

    def compiled(self, grammar: Grammar) -> LLMatcher:
        """A matcher at the grammar's beginning. Takes long where the grammar was not prepared. Raises MatchFailed."""
        with self._lock:
            known = self._prepared.get(grammar)
            if known is not None:
                self._prepared.move_to_end(grammar)
        if known is None:
            known = guarded(lambda: self._compile(grammar))
            with self._lock:
                self._prepared[grammar] = known
                while len(self._prepared) > _KEPT:
                    self._prepared.popitem(last=False)
        return known.deep_copy()

    def _compile(self, grammar: Grammar) -> LLMatcher:
        try:
            from llguidance import LLMatcher, LLParserLimits
        except ImportError:
            raise MatchFailed("llguidance is needed for grammars: pip install 'paddock[grammar]'") from None
        limits = LLParserLimits(**_LIMITS)  # type: ignore[arg-type]
        matcher = LLMatcher(self._shared_tokenizer(), as_llguidance(grammar), log_level=0, limits=limits)
        mask_of(matcher, self._model.n_vocab)
        return matcher

    def _shared_tokenizer(self) -> LLTokenizer:
        with self._tokenizer_lock:
            if self._tokenizer is None:
                from llguidance import LLTokenizer

                table = self._model.piece_table()
                if not table.eog:
                    raise MatchFailed("this model has no end-of-generation token, by which a reply could end")
                wrapper: Any = _Tokens(table)
                self._tokenizer = LLTokenizer(wrapper, n_vocab=table.n_vocab, eos_token=sorted(table.eog))
            return self._tokenizer


class GrammarMatcher:
    """The grammar of one sequence. One thread may use it; ``free`` when done.

    ``consumed``: the tokens generated so far. Raises nothing; :meth:`allowed` says what went wrong.
    """

    def __init__(self, library: GrammarLibrary, grammar: Grammar, n_vocab: int, consumed: Sequence[int] = ()) -> None:
        self._n_vocab = n_vocab
        self._matcher: LLMatcher | None = None
        self._seconds = COMPILE_SECONDS
        self._thread = GrammarThread()
        tokens = list(consumed)

        def begin() -> Mask:
            matcher = library.compiled(grammar)
            if tokens and not matcher.consume_tokens(tokens):
                raise MatchFailed(f"the tokens so far do not match: {matcher.get_error()}")
            self._matcher = matcher
            return mask_of(matcher, n_vocab)

        self._job: GrammarJob[Mask] = self._thread.submit(lambda: guarded(begin))

    def allowed(self) -> Mask:
        """True for each token that may come next: shape (n_vocab,). Waits for it. Raises MatchFailed."""
        if not self._job.wait(self._seconds):
            raise MatchFailed(f"the grammar took more than {self._seconds:g} s for one token; make it simpler")
        return self._job.result()

    def consume(self, token: int) -> None:
        """Goes on with ``token``. Does not wait."""
        n_vocab = self._n_vocab

        def advance() -> Mask:
            matcher = self._matcher
            if matcher is None or not matcher.consume_token(token):
                reason = "" if matcher is None else _reason(matcher.get_error())
                raise MatchFailed(f"the grammar cannot go on: {reason}")
            return mask_of(matcher, n_vocab)

        self._seconds = MASK_SECONDS
        self._job = self._thread.submit(lambda: guarded(advance))

    def free(self) -> None:
        """Ends its thread. Idempotent."""
        self._thread.stop()


class _Tokens:
    """What LLTokenizer asks of a tokenizer. Text need not be tokenized, as nothing is forced."""

    is_tokenizer_wrapper = True

    def __init__(self, table: PieceTable) -> None:
        self.eos_token_id = min(table.eog)
        self.bos_token_id = None
        self.tokens = [table.piece(token) for token in range(table.n_vocab)]
        self.special_token_ids = sorted(table.control | table.eog)

    def __call__(self, text: str | bytes) -> list[int]:
        return []


def as_llguidance(grammar: Grammar) -> str:
    """The grammar in llguidance's JSON form.

    ``no_forcing``: where a grammar leaves one way to go on, llguidance would tokenize that text and allow its first
    token alone. Without it the mask holds every token that goes that way, and the model chooses.
    """
    inner: dict[str, object]
    match grammar.parameter:
        case "json_schema":
            schema = json.loads(grammar.text)
            options = schema.get("x-guidance", {})
            if isinstance(options, dict):
                schema["x-guidance"] = {"whitespace_pattern": _WHITESPACE, **options}
            inner = {"json_schema": schema}
        case "regex":
            from llguidance import LLMatcher

            (inner,) = json.loads(LLMatcher.grammar_from_regex(grammar.text))["grammars"]
        case _:
            inner = {"lark_grammar": grammar.text}
    outer = {"lark_grammar": f'%llguidance {{"no_forcing": true}}\nstart: @{_NAME}'}
    return json.dumps({"grammars": [outer, {**inner, "name": _NAME}]}, allow_nan=False)


def mask_of(matcher: LLMatcher, n_vocab: int) -> Mask:
    """The tokens that may come next; raises MatchFailed where the grammar allows none or cannot go on."""
    words = np.zeros((n_vocab + 31) // 32, np.int32)
    if not matcher.is_error():
        matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
    if matcher.is_error():
        raise MatchFailed(_reason(matcher.get_error()))
    mask = np.unpackbits(words.view(np.uint8), count=n_vocab, bitorder="little").view(np.bool_)
    if not mask.any():
        raise MatchFailed("the grammar allows no token")
    return mask


def _reason(message: str) -> str:
    if "NoExtension" in message:
        return "the grammar allows no token"
    return message.replace("<non-verbose/>", "").strip()[:400]


def guarded(call: Callable[[], Any]) -> Any:
    """Runs ``call``; whatever llguidance raises, a panic of its Rust code included, becomes MatchFailed."""
    try:
        return call()
    except (KeyboardInterrupt, SystemExit, MatchFailed):
        raise
    except BaseException as error:  # pyo3's PanicException is no Exception
        raise MatchFailed(_reason(f"{error}") or type(error).__name__) from None


def refused(grammar: Grammar, reason: str) -> InvalidParameter:
    return InvalidParameter(grammar.parameter, grammar.text, reason)
