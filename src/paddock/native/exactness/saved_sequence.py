"""A sequence's state as llama.cpp gives it, for the probe: taken from one sequence and put into another.

Nothing is checked here; what is put back was taken a moment before, from the same context.
"""

from __future__ import annotations

import ctypes

import attrs

from paddock.errors import DecodeFailed
from paddock.native.context import Context

__all__ = ["SavedSequence", "restore_sequence", "save_sequence"]


@attrs.frozen(eq=False)
class SavedSequence:
    data: ctypes.Array[ctypes.c_uint8]
    n_tokens: int


def save_sequence(context: Context, sequence_id: int) -> SavedSequence:
    """The cells of a sequence. Raises :class:`paddock.errors.DecodeFailed`."""
    lib, pointer = context.native
    size = int(lib.llama_state_seq_get_size(pointer, sequence_id))
    data = (ctypes.c_uint8 * max(size, 1))()
    if size == 0 or int(lib.llama_state_seq_get_data(pointer, data, size, sequence_id)) != size:
        raise DecodeFailed(0, f"llama.cpp did not save the state of sequence {sequence_id}")
    return SavedSequence(data, context.position(sequence_id))


def restore_sequence(context: Context, sequence_id: int, saved: SavedSequence) -> None:
    """Puts saved cells into an open, empty sequence. Raises :class:`paddock.errors.DecodeFailed`."""
    lib, pointer = context.native
    if int(lib.llama_state_seq_set_data(pointer, saved.data, len(saved.data), sequence_id)) != len(saved.data):
        raise DecodeFailed(0, f"llama.cpp did not restore the state of sequence {sequence_id}")
    context.entered(sequence_id, saved.n_tokens)
