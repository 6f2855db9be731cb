"""Cuts a saved sequence into the payloads of blocks, and puts one together from payloads.

A payload is the data of consecutive tokens without any header, plane after plane, so that its bytes depend neither
on the sequence's id nor on how many tokens stand before or behind. All copies are numpy's, of whole runs of planes;
numpy releases the GIL during a copy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paddock.errors import SequenceStateError
from paddock.native.state.layout import Bytes, StateLayout, write_headers

__all__ = ["assemble", "cut", "place", "start_state"]


def cut(layout: StateLayout, sequence_id: int, n_tokens: int, state: Bytes, first: int, stop: int, into: Bytes) -> None:
    """Copies tokens ``first`` to ``stop`` of a state of ``n_tokens`` tokens into a payload.

    ``into`` has ``layout.payload_bytes(stop - first)`` bytes; SequenceStateError where it has not, or the state has no
    such tokens.
    """
    _check_size(state, layout.state_bytes(n_tokens), "a state")
    _check_size(into, layout.payload_bytes(stop - first), "a payload")
    if not 0 <= first < stop <= n_tokens:
        raise SequenceStateError(f"tokens {first} to {stop} of {n_tokens} cannot be cut out")
    offset = 0
    for run in layout.runs:
        source = layout.in_state(run, state, sequence_id, n_tokens)[:, :, first:stop]
        into[offset : offset + source.size].reshape(source.shape)[:] = source
        offset += source.size


def start_state(layout: StateLayout, sequence_id: int, n_tokens: int, into: Bytes) -> None:
    """Writes the headers of a state of ``n_tokens`` tokens, which has ``layout.state_bytes(n_tokens)`` bytes."""
    if n_tokens < 1 or not 0 <= layout.stream(sequence_id) < layout.n_streams:
        raise SequenceStateError(f"{n_tokens} tokens of sequence {sequence_id} are no state")
    _check_size(into, layout.state_bytes(n_tokens), "a state")
    write_headers(layout, sequence_id, n_tokens, into)


def place(layout: StateLayout, sequence_id: int, n_tokens: int, state: Bytes, first: int, payload: Bytes) -> None:
    """The reverse of :func:`cut`: copies a payload to where its tokens stand, from ``first`` on. Tokens of the payload
    beyond ``n_tokens`` are left out."""
    _check_size(state, layout.state_bytes(n_tokens), "a state")
    tokens, rest = divmod(len(payload), layout.token_bytes)
    if rest or not 0 <= first < n_tokens:
        raise SequenceStateError(f"a payload of {len(payload)} bytes cannot stand at token {first} of {n_tokens}")
    stop = min(first + tokens, n_tokens)
    offset = 0
    for run in layout.runs:
        target = layout.in_state(run, state, sequence_id, n_tokens)[:, :, first:stop]
        size = run.count * run.rows * run.item_bytes * tokens
        source = payload[offset : offset + size].reshape(run.count, run.rows, tokens, run.item_bytes)
        target[:] = source[:, :, : stop - first]
        offset += size


def assemble(layout: StateLayout, sequence_id: int, n_tokens: int, payloads: Sequence[Bytes], into: Bytes) -> None:
    """Puts a state of ``n_tokens`` tokens together for ``llama_state_seq_set_data``, byte for byte as llama.cpp would
    write it. The payloads follow each other and hold ``n_tokens`` tokens or, in the last one, more.

    SequenceStateError where they do not; ``into`` is of no use then.
    """
    start_state(layout, sequence_id, n_tokens, into)
    first = 0
    for payload in payloads:
        place(layout, sequence_id, n_tokens, into, first, payload)
        first += len(payload) // layout.token_bytes
    if first < n_tokens:
        raise SequenceStateError(f"the payloads hold {first} tokens of {n_tokens}")


def _check_size(data: Bytes, expected: int, what: str) -> None:
    if data.dtype != np.uint8 or data.ndim != 1 or len(data) != expected or not data.flags.c_contiguous:
        raise SequenceStateError(f"{what} has {data.nbytes} bytes, not {expected}")
