"""The synchronous engine that a worker process and a worker thread have in common.

:class:`Executor` owns the model and its context. Whoever receives messages (the *receiving thread*) hands
each to :meth:`Executor.handle`, which never waits: Abort and Ping are dealt with at once, everything else
goes to one of four OS threads. The *decode thread* alone calls llama.cpp's context (libgomp keeps a pool of
threads for each calling thread, and a context must have one caller); the *tokenize thread* only reads the
vocabulary, so that a prompt never waits for a decode; the *state thread* cuts saved sequences into blocks and puts
them together; the *grammar thread*, started for the first, has grammars compiled one after another. Answers leave
through ``emit``, from any of these threads.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import attrs
import msgspec
import numpy as np

from paddock.engine.worker.framing import fault_of
from paddock.engine.worker.protocol import (
    Abort,
    BlocksRestored,
    BlocksSaved,
    CompileGrammar,
    Fault,
    FromWorker,
    GrammarCompiled,
    Load,
    Loaded,
    LoadFailed,
    LoadProgress,
    LogitsSampled,
    Ping,
    Pong,
    RestoreBlocks,
    SampleLogits,
    SaveBlocks,
    Step,
    Stepped,
    Stop,
    Tokenize,
    Tokenized,
    ToWorker,
)
from paddock.engine.worker.state_worker import AssembledState, StateWorker
from paddock.errors import DecodeAborted, ModelLoadFailed, PaddockError, ProtocolError, WorkerBusy
from paddock.native import library
from paddock.native.batch import Chunk, Sampled
from paddock.native.context import Context
from paddock.native.exactness.certificate import Certificate
from paddock.native.exactness.certify import certify
from paddock.native.model import ModelLoadParameters, NativeModel
from paddock.native.state.self_check import StateSupport, check_state
from paddock.sampling.grammars import Grammar
from paddock.sampling.parameters import SamplingParameters

__all__ = ["MAX_QUEUED_STEPS", "MAX_QUEUED_TEXTS", "Executor"]

MAX_QUEUED_STEPS: Final = 64
"""Steps (and hooked logits rows) that may wait for the decode thread; one more is answered with
WorkerBusy."""

MAX_QUEUED_TEXTS: Final = 1024
"""Texts that may wait for the tokenize thread, and grammars for theirs."""


class Executor:
    """One model, one context, four threads. ``start``, then ``handle`` until Stop; then ``join``.

    ``emit`` must be callable from any thread and must not raise. ``stopped`` is called on the decode thread
    as its last deed, after everything native has been freed. ``arena_fd`` is the file that saved blocks lie in,
    which is duplicated.
    """

    def __init__(
        self, emit: Callable[[FromWorker], None], stopped: Callable[[], None], arena_fd: int | None = None
    ) -> None:
        self._emit = emit
        self._stopped = stopped
        self._model: NativeModel | None = None
        self._context: Context | None = None
        self._work: queue.SimpleQueue[tuple[int, Load | Step | SampleLogits | SaveBlocks | AssembledState | Stop]] = (
            queue.SimpleQueue()
        )
        self._states = StateWorker(emit, lambda assembled: self._work.put((0, assembled)), arena_fd)
        self._texts: queue.SimpleQueue[Tokenize | None] = queue.SimpleQueue()
        self._grammars: queue.SimpleQueue[CompileGrammar | None] = queue.SimpleQueue()
        self._grammar_thread: threading.Thread | None = None
        self._stopping = False
        self._reported = -1.0
        self._busy_since: float | None = None
        # Abort ends every step received before it, also one that the decode thread has not begun: without the
        # count, an abort sent right behind its step would be lost. The lock orders it against a step's begin
        # and end, so that no abort ever reaches the step after.
        self._abort_lock = threading.Lock()
        self._received = 0
        self._abort_through = 0
        self._decoding: Context | None = None
        self._decode_thread = threading.Thread(target=self._decode_loop, name="paddock decode", daemon=True)
        self._tokenize_thread = threading.Thread(target=self._tokenize_loop, name="paddock tokenize", daemon=True)

    def start(self) -> None:
        """Starts the threads."""
        self._states.start()
        self._decode_thread.start()
        self._tokenize_thread.start()

    def join(self, timeout: float) -> bool:
        """Waits for all threads to end; False when ``timeout`` seconds were not enough."""
        deadline = time.monotonic() + timeout
        for thread in (self._decode_thread, self._tokenize_thread):
            thread.join(max(0.0, deadline - time.monotonic()))
        ended = self._states.join(max(0.0, deadline - time.monotonic()))
        return ended and not (self._decode_thread.is_alive() or self._tokenize_thread.is_alive())

    def handle(self, message: ToWorker) -> None:
        """Takes one message. Never waits; called by the receiving thread only."""
        match message:
            case Step() | SampleLogits():
                if self._work.qsize() >= MAX_QUEUED_STEPS:
                    self._refuse(message, WorkerBusy("steps", MAX_QUEUED_STEPS))
                    return
                self._received += 1
                self._work.put((self._received, message))
            case Tokenize():
                if self._texts.qsize() >= MAX_QUEUED_TEXTS:
                    self._refuse(message, WorkerBusy("texts", MAX_QUEUED_TEXTS))
                    return
                self._texts.put(message)
            case CompileGrammar():
                self._handle_grammar(message)
            case SaveBlocks() | RestoreBlocks():
                self._handle_state(message)
            case Ping():
                since = self._busy_since
                seconds = 0.0 if since is None else time.monotonic() - since
                self._emit(Pong(message.request_id, seconds))
            case Abort():
                self._abort()
            case Load():
                self._work.put((0, message))
            case Stop():
                self._stopping = True  # ends a load through its progress callback
                self._abort()
                self._work.put((0, message))

    def _handle_state(self, message: SaveBlocks | RestoreBlocks) -> None:
        try:
            self._states.admit()
        except WorkerBusy as error:
            self._refuse(message, error)
            return
        if isinstance(message, SaveBlocks):
            self._work.put((0, message))
        else:
            self._states.restore(message)

    def _handle_grammar(self, message: CompileGrammar) -> None:
        if self._grammars.qsize() >= MAX_QUEUED_TEXTS:
            self._refuse(message, WorkerBusy("grammars", MAX_QUEUED_TEXTS))
            return
        if self._grammar_thread is None:
            thread = threading.Thread(target=self._grammar_loop, name="paddock grammars", daemon=True)
            self._grammar_thread = thread
            thread.start()
        self._grammars.put(message)

    def _abort(self) -> None:
        with self._abort_lock:
            self._abort_through = self._received
            if self._decoding is not None:
                self._decoding.abort()

    def _refuse(
        self,
        message: Step | SampleLogits | Tokenize | CompileGrammar | SaveBlocks | RestoreBlocks,
        error: BaseException,
    ) -> None:
        self._emit(refusal_of(message, fault_of(error)))

    # --- decode thread ----------------------------------------------------------------------------------

    def _decode_loop(self) -> None:
        try:
            while not isinstance(answer := self._next_answer(), Stop):
                if answer is not None:
                    self._emit(answer)
            self._texts.put(None)
            self._grammars.put(None)
            self._states.stop()
            self._tokenize_thread.join()  # it reads the model that is freed next
            if self._grammar_thread is not None:
                self._grammar_thread.join()
            self._states.join()
            self._free()
        finally:
            self._stopped()

    def _next_answer(self) -> FromWorker | Stop | None:
        """Takes the next message and carries it out; None where the state worker answers."""
        number, message = self._work.get()
        self._busy_since = time.monotonic()
        try:
            match message:
                case Step():
                    return self._step(number, message)
                case SampleLogits():
                    return self._sample_logits(message)
                case SaveBlocks():
                    self._states.save_from(self._context, message)
                    return None
                case AssembledState():
                    self._states.restore_into(self._context, message)
                    return None
                case Load():
                    return self._load(message)
                case Stop():
                    return message
        finally:
            self._busy_since = None

    def _load(self, message: Load) -> Loaded | LoadFailed:
        started = time.monotonic()
        path = Path(os.fsdecode(message.raw_path or message.path))
        failure: PaddockError
        try:
            if self._model is not None:
                raise ProtocolError("this worker has loaded a model already")
            loading = ModelLoadParameters(**message.model)  # type: ignore[arg-type]  # its validators check
            self._model = NativeModel.load(path, loading, self._progress)
            self._context = Context.create(self._model, message.context)
            certificate: Certificate | None = None
            if message.probe is not None:
                certificate = certify(self._model, self._context, loading, message.probe, lambda: self._stopping)
            support = StateSupport("none", problem="no state is to be saved")
            if message.block_tokens > 0:
                support = check_state(self._context, self._model)
            self._states.serve(support.layout, message.block_tokens, self._context.sizes().n_ctx_seq)
            seconds = time.monotonic() - started
            loaded = describe(self._model, self._context, support, message.block_tokens, seconds)
            return msgspec.structs.replace(loaded, certificate=certificate)
        except PaddockError as error:
            failure = error
        except Exception as error:
            failure = ModelLoadFailed(path.stem, f"{type(error).__name__}: {error}")
        self._free()
        return LoadFailed(fault_of(failure))

    def _progress(self, fraction: float) -> bool:
        # llama.cpp reports every tensor; a hundred messages say as much as ten thousand.
        if fraction >= self._reported + 0.01 or fraction >= 1.0 > self._reported:
            self._reported = fraction
            self._emit(LoadProgress(fraction))
        return not self._stopping

    def _step(self, number: int, step: Step) -> Stepped:
        started = time.monotonic()
        context = self._context
        try:
            if context is None:
                raise ProtocolError("a step before the model was loaded")
            for release in step.releases:
                context.release_sequence(release.sequence_id, release.generation)
            for opening in step.opens:
                context.open_sequence(
                    opening.sequence_id,
                    opening.generation,
                    SamplingParameters.from_mapping(opening.sampling),
                    opening.history,
                    opening.generated,
                    choice=opening.choice,
                    sampler_state=opening.sampler_state,
                )
            sampled = self._decode(number, context, step) if step.chunks else []
            return Stepped(step.request_id, sampled, time.monotonic() - started)
        except Exception as error:
            positions = {} if context is None else positions_of(context, step.chunks)
            return Stepped(step.request_id, [], time.monotonic() - started, fault_of(error), positions)

    def _decode(self, number: int, context: Context, step: Step) -> list[Sampled]:
        with self._abort_lock:
            if number <= self._abort_through:
                raise DecodeAborted("aborted before it began; no position changed")
            self._decoding = context
        try:
            return context.decode_and_sample_batch(step.chunks)
        finally:
            with self._abort_lock:
                self._decoding = None
                context.clear_abort()

    def _sample_logits(self, message: SampleLogits) -> LogitsSampled:
        try:
            if self._context is None:
                raise ProtocolError("a logits row before the model was loaded")
            sampled = self._context.sample_logits(message.sequence_id, message.generation, message.logits)
            return LogitsSampled(message.request_id, sampled)
        except Exception as error:
            return LogitsSampled(message.request_id, None, fault_of(error))

    def _free(self) -> None:
        context, self._context = self._context, None
        model, self._model = self._model, None
        if context is not None:
            context.free()
        if model is not None:
            model.free()

    # --- tokenize thread --------------------------------------------------------------------------------

    def _tokenize_loop(self) -> None:
        while (message := self._texts.get()) is not None:
            if self._stopping:
                continue  # nobody waits for an answer any more
            try:
                model = self._model
                if model is None or self._context is None:
                    raise ProtocolError("a text before the model was loaded")
                tokens = model.tokenize(message.text, message.add_special, message.parse_special)
                answer = Tokenized(message.request_id, tokens)
            except Exception as error:
                answer = Tokenized(message.request_id, [], fault_of(error))
            self._emit(answer)

    # --- grammar thread ---------------------------------------------------------------------------------

    def _grammar_loop(self) -> None:
        while (message := self._grammars.get()) is not None:
            if self._stopping:
                continue
            try:
                model = self._model
                if model is None or self._context is None:
                    raise ProtocolError("a grammar before the model was loaded")
                model.grammars.prepare(Grammar(message.parameter, message.text))
                answer = GrammarCompiled(message.request_id)
            except Exception as error:
                answer = GrammarCompiled(message.request_id, fault_of(error))
            self._emit(answer)


def describe(model: NativeModel, context: Context, support: StateSupport, block_tokens: int, seconds: float) -> Loaded:
    """What the parent has to know of a model that serves."""
    table = model.piece_table()
    sizes = context.sizes()
    special = attrs.asdict(model.special_tokens, filter=lambda field, value: type(value) is int)
    return Loaded(
        n_vocab=model.n_vocab,
        n_ctx=sizes.n_ctx_seq,
        n_seq_max=sizes.n_seq_max,
        n_batch=sizes.n_batch,
        pieces=table.data,
        offsets=np.asarray(table.offsets, np.dtype("<u4")).tobytes(),
        control=sorted(table.control),
        eog=sorted(table.eog),
        special=special,
        add_bos=model.special_tokens.add_bos,
        add_space_prefix=table.add_space_prefix,
        clean_spaces=table.clean_spaces,
        memory={"model": model.facts.file_size, "kv": sizes.kv_bytes},
        build=library.build().fingerprint,
        seconds=seconds,
        state=support.kind,
        state_problem=support.problem,
        block_bytes=0 if support.layout is None else support.layout.payload_bytes(block_tokens),
        token_bytes=0 if support.layout is None else support.layout.token_bytes,
    )


def positions_of(context: Context, chunks: Sequence[Chunk]) -> dict[int, int]:
    """The tokens that each sequence of a batch holds; one that the context does not know is left out."""
    positions: dict[int, int] = {}
    for chunk in chunks:
        try:
            positions[chunk.sequence_id] = context.position(chunk.sequence_id)
        except PaddockError:
            continue
    return positions


def refusal_of(
    message: Step | SampleLogits | Tokenize | CompileGrammar | SaveBlocks | RestoreBlocks, fault: Fault
) -> FromWorker:
    """The answer to a message that was not carried out."""
    match message:
        case Step():
            return Stepped(message.request_id, [], 0.0, fault)
        case SampleLogits():
            return LogitsSampled(message.request_id, None, fault)
        case Tokenize():
            return Tokenized(message.request_id, [], fault)
        case CompileGrammar():
            return GrammarCompiled(message.request_id, fault)
        case SaveBlocks():
            return BlocksSaved(message.request_id, [], 0.0, 0.0, fault)
        case RestoreBlocks():
            return BlocksRestored(message.request_id, 0, [], 0.0, 0.0, fault)
