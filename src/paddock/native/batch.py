"""What goes into one ``decode_and_sample_batch`` call, and what comes out of it.

These values cross the border between the engine and its worker, so they are plain ``msgspec`` structs,
encoded as arrays. A chunk names its sequence by (id, generation): the generation is chosen by whoever
opened the sequence, and a row of a sequence that has been released since can never be applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import msgspec

__all__ = ["Chunk", "SampleMode", "Sampled"]


class SampleMode(IntEnum):
    """What is wanted from the last row of a chunk."""

    NONE = 0  # nothing: more of the prompt follows
    TOKEN = 1  # a token, sampled by the sequence's own sampler
    LOGITS = 2  # the raw logits row, to be sampled later by ``Context.sample_logits``


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """Consecutive tokens of one sequence; only the last one may be sampled.

    ``position`` is the position of ``tokens[0]`` and must equal the number of tokens that the sequence holds.
    ``sample`` is a :class:`SampleMode`.
    """

    sequence_id: int
    generation: int
    position: int
    tokens: Sequence[int]
    sample: int = SampleMode.NONE


class Sampled(msgspec.Struct, array_like=True):
    """The outcome for one chunk with ``sample`` other than ``NONE``.

    ``token`` is -1 for ``LOGITS`` and where ``error`` is set. ``logprob`` is the natural logarithm of the
    token's probability under the softmax of the raw logits row, ``top`` the most probable alternatives in
    the same measure (most probable first); both only where ``SamplingParameters.logprobs`` is set.
    ``logits`` is the float32 row of ``n_vocab`` values. ``sampler_state`` is not empty for samplers whose
    state cannot be computed from the token history (mirostat, adaptive-p): hand it to
    ``Context.open_sequence`` in order to continue elsewhere. ``error`` says why this row alone could not be
    sampled (no candidate left, NaN logits); the sequence holds the chunk's tokens.
    """

    sequence_id: int
    generation: int
    token: int
    logprob: float | None = None
    top: list[tuple[int, float]] = []
    logits: bytes | None = None
    sampler_state: bytes = b""
    error: str | None = None
