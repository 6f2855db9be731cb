"""What can be done with the saved sequences of a context: found out at load, by doing it.

A few tokens are decoded in the last sequence. If its state can be parsed, cut into payloads, and put together again
to the same bytes, and if what is put together for another sequence is what llama.cpp then saves of that sequence,
states are stored as blocks of tokens. If a state can only be restored as it is, it can be stored as a whole: so it is
with recurrent models, whose state has no tokens, and with sliding windows, which lose cells as a sequence grows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import attrs
import numpy as np

from paddock.errors import PaddockError, SequenceStateError
from paddock.native.batch import Chunk
from paddock.native.state.access import new_bytes
from paddock.native.state.blocks import assemble, cut
from paddock.native.state.layout import Bytes, StateLayout, parse_state
from paddock.sampling import SamplingParameters

if TYPE_CHECKING:
    from paddock.native.context import Context
    from paddock.native.model import NativeModel

__all__ = ["StateKind", "StateSupport", "check_state"]

StateKind = Literal["blocks", "snapshot", "none"]

_N_TOKENS: Final = 7
_BLOCK_TOKENS: Final = 3  # the last block is not full
_GENERATION: Final = -1
_GREEDY = SamplingParameters(temperature=0.0, seed=0)


@attrs.frozen
class StateSupport:
    """``layout`` is set for "blocks"; ``problem`` says why it is not more than "snapshot" or "none"."""

    kind: StateKind
    layout: StateLayout | None = None
    problem: str = ""


def check_state(context: Context, model: NativeModel) -> StateSupport:
    """Decodes in the context's last sequence and restores in its first, which must be free; leaves them empty. On the
    thread that calls the context; takes the time of a prompt of seven tokens."""
    last = context.sizes().n_seq_max - 1
    try:
        state = _decoded_state(context, last, model.n_vocab)
    except PaddockError as error:
        return StateSupport("none", problem=str(error))
    problem = f"states of memory class {model.memory_class!r} are not stored in blocks"
    if model.memory_class == "attention":
        try:
            return StateSupport("blocks", _block_layout(context, last, state))
        except PaddockError as error:
            problem = str(error)
    try:
        if np.array_equal(_restored(context, last, state), state):
            return StateSupport("snapshot", problem=problem)
    except PaddockError as error:
        problem = str(error)
    return StateSupport("none", problem=problem)


def _decoded_state(context: Context, sequence_id: int, n_vocab: int) -> Bytes:
    step = min(_N_TOKENS, context.sizes().n_batch)
    context.open_sequence(sequence_id, _GENERATION, _GREEDY)
    try:
        for first in range(0, _N_TOKENS, step):
            tokens = [token % n_vocab for token in range(first, min(first + step, _N_TOKENS))]
            context.decode_and_sample_batch([Chunk(sequence_id, _GENERATION, first, tokens)])
        return context.save_state(sequence_id, _GENERATION)
    finally:
        context.release_sequence(sequence_id, _GENERATION)


def _block_layout(context: Context, sequence_id: int, state: Bytes) -> StateLayout:
    saved = parse_state(state)
    layout = saved.layout
    if (saved.sequence_id, saved.n_tokens) != (sequence_id, _N_TOKENS):
        raise SequenceStateError(f"it is that of {saved.n_tokens} tokens in sequence {saved.sequence_id}")
    payloads: list[Bytes] = []
    for first in range(0, _N_TOKENS, _BLOCK_TOKENS):
        stop = min(first + _BLOCK_TOKENS, _N_TOKENS)
        payload = new_bytes(layout.payload_bytes(stop - first))
        cut(layout, sequence_id, _N_TOKENS, state, first, stop, payload)
        payloads.append(payload)
    assembled = new_bytes(layout.state_bytes(_N_TOKENS))
    assemble(layout, sequence_id, _N_TOKENS, payloads, assembled)
    if not np.array_equal(assembled, state):
        raise SequenceStateError("what is put together from its parts is not what llama.cpp wrote")
    assemble(layout, 0, _N_TOKENS, payloads, assembled)
    if not np.array_equal(assembled, _restored(context, 0, assembled)):
        raise SequenceStateError("what llama.cpp restored is not what it was given")
    return layout


def _restored(context: Context, sequence_id: int, state: Bytes) -> Bytes:
    """What a sequence's state is after it was restored."""
    context.open_sequence(sequence_id, _GENERATION, _GREEDY)
    try:
        context.restore_state(sequence_id, _GENERATION, state, _N_TOKENS)
        return context.save_state(sequence_id, _GENERATION)
    finally:
        context.release_sequence(sequence_id, _GENERATION)
