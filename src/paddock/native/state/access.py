"""Reads and writes the state of one sequence of a context through llama.cpp, and checks all that it answers."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from paddock.errors import SequenceStateError
from paddock.native.state.layout import Bytes

__all__ = ["new_bytes", "read_state", "write_state"]


def new_bytes(size: int) -> Bytes:
    """``size`` bytes of memory, not initialised."""
    return np.empty(size, np.uint8)


def read_state(lib: Any, context: Any, sequence_id: int, take: Callable[[int], Bytes] = new_bytes) -> Bytes:
    """The state of a sequence as llama.cpp writes it, in memory that ``take`` gave for its size.

    SequenceStateError where llama.cpp does not write as much as it said.
    """
    size = int(lib.llama_state_seq_get_size(context, sequence_id))
    if size == 0:
        raise SequenceStateError(f"llama.cpp gives none for sequence {sequence_id}")
    state = take(size)
    written = int(lib.llama_state_seq_get_data(context, _pointer(state), len(state), sequence_id))
    if written != size:
        raise SequenceStateError(f"llama.cpp wrote {written} of {size} bytes")
    return state


def write_state(lib: Any, context: Any, sequence_id: int, state: Bytes, n_tokens: int) -> None:
    """Replaces what a sequence holds by ``state``, whose tokens stand at positions 0 to ``n_tokens - 1``.

    llama.cpp verifies next to nothing of it: the caller must know that it is a state of this model and context.
    SequenceStateError where llama.cpp refuses it or does not hold these tokens then; what it holds instead is for
    the caller to clear.
    """
    read = int(lib.llama_state_seq_set_data(context, _pointer(state), len(state), sequence_id))
    if read != len(state):
        raise SequenceStateError(f"llama.cpp took {read} of {len(state)} bytes")
    highest = int(lib.llama_memory_seq_pos_max(lib.llama_get_memory(context), sequence_id))
    if highest != n_tokens - 1:
        raise SequenceStateError(f"it ends at position {highest} instead of {n_tokens - 1}")


def _pointer(state: Bytes) -> Any:
    return state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
