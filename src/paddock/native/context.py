"""One llama_context: sequences with their cells and samplers, and the one call that computes a batch.

Everything but :meth:`Context.abort` and :meth:`Context.clear_abort` must be called from one and the same OS
thread. Nothing that a caller passes may end the process: what llama.cpp asserts is checked before.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import attrs
import numpy as np
import numpy.typing as npt

from paddock.errors import (
    DecodeAborted,
    DecodeFailed,
    InvalidBatch,
    InvalidParameter,
    ModelLoadFailed,
    SequenceStateError,
)
from paddock.native import library
from paddock.native.batch import Chunk, Sampled, SampleMode
from paddock.native.context_parameters import (
    CELL_PADDING,
    KV_TYPES,
    MAX_CELLS,
    ContextParameters,
    check_memory,
    kv_bytes,
)
from paddock.native.decode_batch import DecodeBatch
from paddock.native.model import NativeModel
from paddock.native.row_order import RowLimits, RowOrder, order_rows
from paddock.native.sampler_chain import Draw, SamplerLibrary, SequenceSampler
from paddock.native.state.access import new_bytes, read_state, write_state
from paddock.native.state.layout import Bytes
from paddock.sampling import SamplingParameters, validate_for_vocabulary

__all__ = ["Context", "ContextParameters", "ContextSizes"]

_PADDING_TOKEN = 0
_DEFAULTS = ContextParameters()
_ROW_INVARIANT = frozenset(["q8_0", "q4_0"])
"""Weights whose kernels give a row the same bytes however many rows stand beside it."""


@attrs.frozen
class ContextSizes:
    """What the context really has: rows, cells per sequence, and bytes."""

    n_ctx_seq: int
    n_seq_max: int
    n_batch: int
    n_ubatch: int
    kv_bytes: int
    """Cells of all sequences, by the model's dimensions; 0 where they are not attention cells alone."""
    state_bytes: int
    """Size of a saved state of the whole context as it is now."""


@attrs.define
class _Sequence:
    generation: int | None = None
    position: int = 0
    sampler: SequenceSampler | None = None


class Context:
    """A llama_context and its sequences 0..n_seq_max-1. Make one with :meth:`create`, end it with
    :meth:`free`.
    """

    def __init__(self, lib: Any, pointer: Any, model: NativeModel, parameters: ContextParameters) -> None:
        self._lib = lib
        self._pointer = pointer
        self._model = model
        self.parameters = parameters
        self._memory = lib.llama_get_memory(pointer)
        self._n_ctx = int(lib.llama_n_ctx_seq(pointer))
        capacity = int(lib.llama_n_batch(pointer))
        n_batch = min(parameters.n_batch, capacity)
        self._removes_tails = model.memory_class == "attention"
        fill_gaps = parameters.fill_gaps
        if fill_gaps is None:
            fill_gaps = model.facts.matrix_types.keys() <= _ROW_INVARIANT
        self._limits = RowLimits(
            n_vocab=model.n_vocab,
            n_ctx=self._n_ctx,
            n_seq_max=parameters.n_seq_max,
            n_batch=n_batch,
            spare_rows=capacity - n_batch,
            pair_rows=parameters.pair_rows,
            # a padding cell can be taken out again only of plain attention memory
            fill_gaps=fill_gaps and self._removes_tails and not parameters.kv_unified,
        )
        self._sequences = {name: _Sequence() for name in range(parameters.n_seq_max)}
        self._batch = DecodeBatch(lib, capacity, pair_outputs=parameters.pair_rows)
        self._samplers = SamplerLibrary(lib, model, self._n_ctx)
        self.padding_rows = 0
        """Padding rows computed so far."""
        # A libc function as the callback needs no GIL: strlen of the flag is 0 or 1.
        self._abort_flag = ctypes.create_string_buffer(b"\0", 2)
        callback = ctypes.cast(ctypes.CDLL(None).strlen, lib.ggml_abort_callback)
        self._abort_callback = callback
        lib.llama_set_abort_callback(pointer, callback, ctypes.cast(self._abort_flag, ctypes.c_void_p))

    @classmethod
    def create(cls, model: NativeModel, parameters: ContextParameters | Mapping[str, Any] = _DEFAULTS) -> Context:
        """Makes a context of ``model``, which must outlive it.

        Raises :class:`paddock.errors.InvalidConfiguration` and, where llama.cpp or the memory of the
        machine has no room for it, :class:`paddock.errors.ModelLoadFailed`.
        """
        if isinstance(parameters, Mapping):
            parameters = ContextParameters(**parameters)
        lib = library.load()
        name = model.facts.name
        if not model.facts.causal or lib.llama_model_has_encoder(model.pointer):
            raise ModelLoadFailed(name, "it is an encoder, which cannot generate text")
        cells = -(-parameters.n_ctx // CELL_PADDING) * CELL_PADDING
        if cells * parameters.n_seq_max > MAX_CELLS:
            raise ModelLoadFailed(name, f"n_ctx * n_seq_max is more than {MAX_CELLS} cells; lower one of them")
        check_memory(model, parameters, cells)
        native = lib.llama_context_default_params()
        native.n_ctx = cells if parameters.kv_unified else cells * parameters.n_seq_max
        native.n_seq_max = parameters.n_seq_max
        # One sampled row per sequence at most, and as many beside them where rows are paired.
        native.n_outputs_max = parameters.n_seq_max * (2 if parameters.pair_rows else 1)
        native.n_batch = max(parameters.n_batch, native.n_outputs_max) if parameters.pair_rows else parameters.n_batch
        # A call that is cut into several passes may leave a single row for the last of them.
        native.n_ubatch = native.n_batch if parameters.pair_rows else min(parameters.n_ubatch, native.n_batch)
        native.n_threads = parameters.n_threads
        native.n_threads_batch = parameters.n_threads_batch
        native.flash_attn_type = int(parameters.flash_attention)
        native.type_k = KV_TYPES[parameters.type_k]
        native.type_v = KV_TYPES[parameters.type_v]
        native.kv_unified = parameters.kv_unified
        native.offload_kqv = parameters.offload_kqv
        native.no_perf = True
        library.forget_last_words()
        pointer = lib.llama_init_from_model(model.pointer, native)
        if not pointer:
            raise ModelLoadFailed(name, library.last_words() or "llama.cpp made no context")
        if not lib.llama_get_memory(pointer):
            lib.llama_free(pointer)
            raise ModelLoadFailed(name, "it keeps no state between calls, so it cannot generate text")
        return cls(lib, pointer, model, parameters)

    # --- sequences ----------------------------------------------------------------------------------------

    def open_sequence(
        self,
        sequence_id: int,
        generation: int,
        sampling: SamplingParameters,
        history: Sequence[int] = (),
        generated: int = 0,
        *,
        choice: int = 0,
        sampler_state: bytes = b"",
    ) -> None:
        """Clears the sequence's cells and gives it a sampler; whoever had it open before has lost it.

        ``history``: the tokens that penalties and DRY look back on, oldest first. For a new request that is
        the prompt; to go on with one, prompt and all tokens generated, of which ``generated`` counts the
        draws. ``sampler_state`` is that of the last :class:`Sampled`. Decoding enters nothing into the
        history, sampling enters the token drawn.

        Raises :class:`paddock.errors.InvalidBatch` for a wrong id and
        :class:`paddock.errors.InvalidParameter`; the sequence is as before then.
        """
        sequence = self._sequence(sequence_id)
        if isinstance(generation, bool) or not isinstance(generation, int):
            raise InvalidBatch(f"generation {generation!r} of sequence {sequence_id} is no integer")
        for name, value, high in (("generated", generated, 2**31), ("choice", choice, 2**31)):
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= high:
                raise InvalidParameter(name, value, f"an integer from 0 to {high}")
        validate_for_vocabulary(sampling, self._model.n_vocab)
        _check_history(history, self._model.n_vocab)
        sampler = SequenceSampler(
            self._samplers, sampling, choice=choice, history=history, generated=generated, state=sampler_state
        )
        self._clear(sequence_id, sequence)
        sequence.generation = generation
        sequence.sampler = sampler

    def release_sequence(self, sequence_id: int, generation: int) -> None:
        """Removes the sequence's cells and frees its sampler. A stale generation does nothing."""
        sequence = self._sequence(sequence_id)
        if sequence.generation is not None and sequence.generation == generation:
            self._clear(sequence_id, sequence)

    def position(self, sequence_id: int) -> int:
        """How many tokens the sequence holds."""
        return self._sequence(sequence_id).position

    def _sequence(self, sequence_id: int) -> _Sequence:
        if self._pointer is None:
            raise InvalidBatch("the context has been freed")
        sequence = self._sequences.get(sequence_id) if isinstance(sequence_id, int) else None
        if sequence is None:
            raise InvalidBatch(f"sequence {sequence_id!r} is not one of 0..{len(self._sequences) - 1}")
        return sequence

    def _open(self, sequence_id: int, generation: int) -> _Sequence:
        sequence = self._sequence(sequence_id)
        if sequence.sampler is None or sequence.generation != generation:
            raise InvalidBatch(f"sequence {sequence_id} is not open as generation {generation!r}")
        return sequence

    def _clear(self, sequence_id: int, sequence: _Sequence) -> None:
        if sequence.sampler is not None:
            sequence.sampler.free()
        sequence.sampler = None
        sequence.generation = None
        sequence.position = 0
        self._remove(sequence_id, 0)

    def _remove(self, sequence_id: int, start: int) -> None:
        """Removes the cells of a sequence from position ``start`` on, or all where llama.cpp cannot do
        that.
        """
        if start > 0 and self._lib.llama_memory_seq_rm(self._memory, sequence_id, start, -1):
            return
        if not self._lib.llama_memory_seq_rm(self._memory, sequence_id, -1, -1):
            raise DecodeFailed(0, f"llama.cpp did not clear sequence {sequence_id}; restart the worker")

    # --- decoding -----------------------------------------------------------------------------------------

    def decode_and_sample_batch(self, chunks: Sequence[Chunk]) -> list[Sampled]:
        """Appends each chunk to its sequence in one decode call and samples the rows that ask for it.

        One :class:`Sampled` for each chunk with ``sample`` other than NONE, in the order of ``chunks``.

        Raises :class:`paddock.errors.InvalidBatch` before anything is changed;
        :class:`paddock.errors.DecodeAborted` and :class:`paddock.errors.DecodeFailed` after every sequence
        of the batch was put back to where it was (models whose memory cannot be cut: to position 0, see
        :meth:`position`).
        """
        if self._pointer is None:
            raise InvalidBatch("the context has been freed")
        plan = order_rows(chunks, self._sequences, self._limits)
        with library.failure_expected(self._aborting):
            code = self._batch.decode(self._pointer, plan, _PADDING_TOKEN)
        if code != 0:
            self._decode_failed(code, plan)
        for padding in plan.paddings:
            self._remove(padding.sequence_id, padding.position)
        self.padding_rows += len(plan.paddings)
        for chunk in plan.chunks:
            self._sequences[chunk.sequence_id].position += len(chunk.tokens)
        wanted = [chunk for chunk in plan.chunks if chunk.sample != SampleMode.NONE]
        if not wanted:
            return []
        rows = self._batch.logits(self._pointer, self._model.n_vocab)
        sampled = {chunk.sequence_id: self._sample(chunk, row) for chunk, row in zip(wanted, rows, strict=True)}
        return [sampled[chunk.sequence_id] for chunk in chunks if chunk.sequence_id in sampled]

    def _decode_failed(self, code: int, plan: RowOrder) -> NoReturn:
        if code != 1:  # 1 is "no room", which changes nothing
            for chunk in plan.chunks:
                sequence = self._sequences[chunk.sequence_id]
                self._restore(chunk.sequence_id, sequence.position)
            for padding in plan.paddings:
                self._restore(padding.sequence_id, padding.position)
        if code == 2:
            raise DecodeAborted("the decode call was aborted; every sequence is as before the call")
        raise DecodeFailed(code, library.last_words() or "no room in the KV cache")

    def _restore(self, sequence_id: int, position: int) -> None:
        """Puts a sequence back to ``position`` tokens, then reads what it really holds."""
        self._remove(sequence_id, position if self._removes_tails else 0)
        highest = int(self._lib.llama_memory_seq_pos_max(self._memory, sequence_id))
        self._sequences[sequence_id].position = highest + 1

    def _sample(self, chunk: Chunk, row: npt.NDArray[np.float32]) -> Sampled:
        if chunk.sample == SampleMode.LOGITS:
            return Sampled(chunk.sequence_id, chunk.generation, -1, logits=row.tobytes())
        sampler = self._sequences[chunk.sequence_id].sampler
        assert sampler is not None
        return _sampled(chunk.sequence_id, chunk.generation, sampler, sampler.sample(row))

    def sample_logits(self, sequence_id: int, generation: int, logits: bytes) -> Sampled:
        """Samples with the sequence's own sampler from ``logits``: float32, little endian, n_vocab values.

        Raises :class:`paddock.errors.InvalidBatch` for a sequence that is not open under ``generation`` and
        :class:`paddock.errors.InvalidParameter` for a row of the wrong length. Values that cannot be
        sampled from (NaN, +inf, all -inf) give a :class:`Sampled` with an error.
        """
        sampler = self._open(sequence_id, generation).sampler
        assert sampler is not None
        if not isinstance(logits, bytes | bytearray | memoryview) or len(logits) != 4 * self._model.n_vocab:
            raise InvalidParameter("logits", type(logits), f"the bytes of {self._model.n_vocab} float32 values")
        row = np.frombuffer(logits, "<f4")
        return _sampled(sequence_id, generation, sampler, sampler.sample(row))

    # --- saved state --------------------------------------------------------------------------------------

    def save_state(self, sequence_id: int, generation: int, take: Callable[[int], Bytes] = new_bytes) -> Bytes:
        """All that the sequence's cells hold, for its :meth:`position` tokens; see ``native/state/layout.py``.

        Raises :class:`paddock.errors.InvalidBatch` for a sequence that is not open under ``generation`` and
        :class:`paddock.errors.SequenceStateError`.
        """
        self._open(sequence_id, generation)
        return read_state(self._lib, self._pointer, sequence_id, take)

    def restore_state(self, sequence_id: int, generation: int, state: Bytes, n_tokens: int) -> None:
        """Fills an open, empty sequence with a state that was saved under the same model and parameters, and whose
        bytes the caller has verified: llama.cpp does not. Errors as :meth:`save_state`; it is empty then.
        """
        sequence = self._open(sequence_id, generation)
        if sequence.position != 0 or not 0 < n_tokens <= self._n_ctx:
            raise InvalidBatch(f"{n_tokens} tokens cannot be restored behind the {sequence.position} of {sequence_id}")
        try:
            write_state(self._lib, self._pointer, sequence_id, state, n_tokens)
        except SequenceStateError:
            self._remove(sequence_id, 0)
            raise
        sequence.position = n_tokens

    # --- the rest -----------------------------------------------------------------------------------------

    def abort(self) -> None:
        """Ends the decode call in progress, and every one until :meth:`clear_abort`. Any thread. CPU only."""
        self._abort_flag[0] = b"\x01"

    def _aborting(self) -> bool:
        return bool(self._abort_flag[0] != b"\0")

    def clear_abort(self) -> None:
        """Takes :meth:`abort` back. Any thread."""
        self._abort_flag[0] = b"\0"

    def set_threads(self, n_threads: int) -> None:
        """How many threads compute from now on, whatever the parameters say."""
        if self._pointer is None:
            raise InvalidBatch("the context has been freed")
        self._lib.llama_set_n_threads(self._pointer, n_threads, n_threads)

    def sizes(self) -> ContextSizes:
        """Rows, cells and bytes of this context."""
        if self._pointer is None:
            raise InvalidBatch("the context has been freed")
        return ContextSizes(
            n_ctx_seq=self._n_ctx,
            n_seq_max=len(self._sequences),
            n_batch=self._limits.n_batch,
            n_ubatch=int(self._lib.llama_n_ubatch(self._pointer)),
            kv_bytes=kv_bytes(self._model, self.parameters, self._n_ctx),
            state_bytes=int(self._lib.llama_state_get_size(self._pointer)),
        )

    def free(self) -> None:
        """Frees samplers and context. Idempotent; nothing but ``abort`` may be called after."""
        pointer, self._pointer = self._pointer, None
        if pointer is None:
            return
        for sequence in self._sequences.values():
            if sequence.sampler is not None:
                sequence.sampler.free()
                sequence.sampler = None
        self._samplers.free()
        self._lib.llama_free(pointer)

    def __repr__(self) -> str:
        taken = sum(sequence.generation is not None for sequence in self._sequences.values())
        state = "freed" if self._pointer is None else f"{taken} of {len(self._sequences)} sequences open"
        return f"<Context {self._model.facts.name!r} {state}>"


def _check_history(history: Sequence[int], n_vocab: int) -> None:
    if len(history) == 0:
        return
    try:
        tokens = np.asarray(history)
    except (ValueError, OverflowError):  # ragged
        tokens = np.asarray(None)
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu" or tokens.min() < 0 or tokens.max() >= n_vocab:
        raise InvalidParameter("history", history, f"token ids below {n_vocab}")


def _sampled(sequence_id: int, generation: int, sampler: SequenceSampler, draw: Draw) -> Sampled:
    return Sampled(
        sequence_id,
        generation,
        draw.token,
        draw.logprob,
        draw.top,
        sampler_state=sampler.state,
        error=draw.error,
    )
