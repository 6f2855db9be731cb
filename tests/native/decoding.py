"""Runs a sequence to its end, as the engine does, for tests that compare runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from paddock.native.batch import Chunk, Sampled, SampleMode
from paddock.native.context import Context
from paddock.sampling import SamplingParameters

PROMPT = [1, 300, 301, 302, 345, 400, 512, 600, 711, 1023]


def step(context: Context, sequence_id: int, generation: int, tokens: Sequence[int], sample: int = 1) -> Sampled:
    chunk = Chunk(sequence_id, generation, context.position(sequence_id), list(tokens), sample)
    (sampled,) = context.decode_and_sample_batch([chunk])
    assert sampled.error is None, sampled.error
    return sampled


def run(
    context: Context,
    sampling: SamplingParameters,
    n_tokens: int,
    *,
    sequence_id: int = 0,
    prompt: Sequence[int] = PROMPT,
) -> list[Sampled]:
    """A whole request: prompt in one chunk, then one token at a time."""
    context.open_sequence(sequence_id, 1, sampling, history=prompt)
    sampled = [step(context, sequence_id, 1, prompt)]
    while len(sampled) < n_tokens:
        sampled.append(step(context, sequence_id, 1, [sampled[-1].token]))
    context.release_sequence(sequence_id, 1)
    return sampled


def resume(
    context: Context,
    sampling: SamplingParameters,
    so_far: Sequence[Sampled],
    n_tokens: int,
    *,
    sequence_id: int = 0,
    prompt: Sequence[int] = PROMPT,
) -> list[Sampled]:
    """Goes on after ``so_far`` as if everything else had been lost: prompt as a chunk, then single tokens."""
    tokens = [sampled.token for sampled in so_far]
    context.open_sequence(
        sequence_id,
        7,
        sampling,
        history=[*prompt, *tokens],
        generated=len(tokens),
        sampler_state=so_far[-1].sampler_state,
    )
    decode(context, sequence_id, 7, prompt)
    for token in tokens[:-1]:
        decode(context, sequence_id, 7, [token])
    sampled = [step(context, sequence_id, 7, tokens[-1:])]
    while len(sampled) < n_tokens:
        sampled.append(step(context, sequence_id, 7, [sampled[-1].token]))
    context.release_sequence(sequence_id, 7)
    return sampled


def decode(context: Context, sequence_id: int, generation: int, tokens: Sequence[int]) -> None:
    position = context.position(sequence_id)
    assert not context.decode_and_sample_batch([Chunk(sequence_id, generation, position, list(tokens))])


def logits(context: Context, chunks: Sequence[Chunk]) -> list[bytes]:
    """The raw logits rows of ``chunks``, each of which asks for them."""
    sampled = context.decode_and_sample_batch(chunks)
    rows = [row.logits for row in sampled]
    assert all(row is not None for row in rows)
    return [row for row in rows if row is not None]


def as_row(data: bytes) -> npt.NDArray[np.float32]:
    return np.frombuffer(data, np.float32)


def logits_chunk(context: Context, sequence_id: int, generation: int, tokens: Sequence[int]) -> Chunk:
    return Chunk(sequence_id, generation, context.position(sequence_id), list(tokens), SampleMode.LOGITS)
