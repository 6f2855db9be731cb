"""Grammars of one model: which tokens they allow, and how those that cannot be used are refused."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest

from paddock.errors import InvalidParameter
from paddock.native.grammar import GrammarLibrary, GrammarMatcher, MatchFailed, guarded
from paddock.native.grammar_thread import GrammarThread
from paddock.native.model import NativeModel
from paddock.sampling.grammars import Grammar
from paddock.text.pieces import PieceTable


def allowed(matcher: GrammarMatcher, table: PieceTable) -> set[bytes]:
    return {table.piece(int(token)) for token in np.flatnonzero(matcher.allowed())}


def test_every_token_that_goes_the_grammars_way_is_allowed_and_at_its_end_only_the_end(model: NativeModel) -> None:
    table = model.piece_table()
    matcher = GrammarMatcher(model.grammars, Grammar("regex", "no+"), model.n_vocab)
    first = allowed(matcher, table)
    assert {b"n", b"no"} <= first
    assert all(piece.startswith(b"n") and not piece.strip(b"no") for piece in first)
    (token,) = (number for number in range(model.n_vocab) if table.piece(number) == b"no")
    matcher.consume(token)
    then = allowed(matcher, table)
    assert then >= {table.piece(end) for end in table.eog}
    assert b"n" not in then
    matcher.free()
    once = GrammarMatcher(model.grammars, Grammar("regex", "no"), model.n_vocab, [token])
    assert set(np.flatnonzero(once.allowed())) == set(table.eog)
    once.free()


def test_a_token_that_the_grammar_forbids_is_an_error_and_no_abort(model: NativeModel) -> None:
    matcher = GrammarMatcher(model.grammars, Grammar("regex", "[0-9]"), model.n_vocab)
    matcher.consume(next(iter(model.special_tokens.eog)))
    for _ in range(2):
        with pytest.raises(MatchFailed):
            matcher.allowed()
    matcher.free()


def test_without_the_extra_the_error_says_what_to_install(model: NativeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(InvalidParameter, match=r"pip install 'paddock\[grammar\]'"):
        GrammarLibrary(model).prepare(Grammar("regex", "never prepared before"))


def test_a_model_that_cannot_end_a_text_takes_no_grammar() -> None:
    class Endless:
        n_vocab = 2

        def piece_table(self) -> PieceTable:
            return PieceTable.from_pieces([b"a", b"b"])

    with pytest.raises(InvalidParameter, match="no end-of-generation token"):
        GrammarLibrary(Endless()).prepare(Grammar("regex", "a"))


def test_a_panic_of_rust_code_fails_the_grammar_alone() -> None:
    class PanicException(BaseException):
        """As pyo3 raises it."""

    def panic() -> None:
        raise PanicException("index out of bounds")

    with pytest.raises(MatchFailed, match="index out of bounds"):
        guarded(panic)


def test_whoever_waits_for_a_job_gives_up_when_it_has_used_its_processor_time() -> None:
    thread, end = GrammarThread(), threading.Event()

    def spin() -> str:
        while not end.is_set():
            pass
        return "done"

    job = thread.submit(spin)
    thread.stop()
    assert not job.wait(0.05)
    end.set()
    assert job.wait(60.0)
    assert job.result() == "done"


def test_a_job_that_only_waits_is_waited_for() -> None:
    thread, go = GrammarThread(), threading.Event()
    job = thread.submit(lambda: go.wait(30.0))
    thread.stop()
    threading.Timer(0.1, go.set).start()
    assert job.wait(0.01)
    assert job.result()
