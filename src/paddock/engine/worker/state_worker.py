"""Saves sequences into the slots of the arena and puts them together again, beside the decode thread.

The decode thread only copies: a whole state out of the context, or one into it. Cutting, checksums, verifying and
putting together happen on the thread of the :class:`StateWorker`. A payload from the arena is never trusted: an
earlier worker may have scribbled over it as it crashed, so each is checked against the checksum that the parent kept.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Final

import attrs
import numpy as np
import xxhash

from paddock.cache.arena import ArenaMapping
from paddock.cache.headroom import require_headroom
from paddock.engine.worker.framing import fault_of
from paddock.engine.worker.protocol import (
    BlockRef,
    BlocksRestored,
    BlocksSaved,
    Fault,
    RestoreBlocks,
    SaveBlocks,
)
from paddock.errors import CacheError, CacheMemoryExhausted, ProtocolError, SequenceStateError, WorkerBusy
from paddock.native.context import Context
from paddock.native.state.access import new_bytes
from paddock.native.state.blocks import cut, place, start_state
from paddock.native.state.layout import Bytes, StateLayout, check_headers

__all__ = ["MAX_STATES", "MAX_STATE_BYTES", "AssembledState", "StateWorker", "checksum_of"]

MAX_STATES: Final = 8
"""Saves and restores that may be under way; each holds a sequence's state in memory."""

MAX_STATE_BYTES: Final = 1 << 30
"""What states under way may take together; a longer one has to be alone."""

_KEPT_BYTES: Final = 64 << 20
"""The longest buffer that is kept for the next state: memory that is new each time costs more than the copy."""


def checksum_of(payload: Bytes) -> bytes:
    """XXH3-128 of a payload, 16 bytes: it guards against accidents, not against an adversary."""
    return xxhash.xxh3_128_digest(payload.data)


@attrs.frozen(eq=False)
class _TakenState:
    """Read from the context, still to be cut. ``decode_seconds`` is the decode thread's time."""

    message: SaveBlocks
    n_tokens: int
    state: Bytes
    started: float
    decode_seconds: float


@attrs.frozen(eq=False)
class AssembledState:
    """Verified and put together, still to be given to the context."""

    message: RestoreBlocks
    state: Bytes
    started: float


class StateWorker:
    """One thread, and the buffers that states pass through between it and the decode thread.

    ``emit`` sends an answer; ``apply`` hands an :class:`AssembledState` to the decode thread, which calls
    :meth:`restore_into` with it. ``arena_fd`` is the arena's file, None for a worker that has none.
    """

    def __init__(
        self,
        emit: Callable[[BlocksSaved | BlocksRestored], None],
        apply: Callable[[AssembledState], None],
        arena_fd: int | None,
    ) -> None:
        self._emit = emit
        self._apply = apply
        self._arena = None if arena_fd is None else ArenaMapping(arena_fd)
        self._layout: StateLayout | None = None
        self._block_tokens = 0
        self._n_ctx = 0
        self._work: queue.SimpleQueue[_TakenState | RestoreBlocks | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._under_way = 0
        self._lent = 0
        self._kept: Bytes | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="paddock state", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout: float | None = None) -> bool:
        """False when ``timeout`` seconds were not enough."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Ends the thread; what is under way is not answered any more. Any thread."""
        self._stopping = True
        self._work.put(None)

    # --- receiving thread ---------------------------------------------------------------------------------

    def admit(self) -> None:
        """Takes a place for one save or restore, which its answer gives back. WorkerBusy when there is none."""
        with self._lock:
            if self._under_way >= MAX_STATES:
                raise WorkerBusy("saves and restores", MAX_STATES)
            self._under_way += 1

    def restore(self, message: RestoreBlocks) -> None:
        """Queues an admitted restore."""
        self._work.put(message)

    # --- decode thread ------------------------------------------------------------------------------------

    def serve(self, layout: StateLayout | None, block_tokens: int, n_ctx: int) -> None:
        """What the loaded model's states look like; None where they cannot be cut."""
        self._layout = layout
        self._block_tokens = block_tokens
        self._n_ctx = n_ctx

    def save_from(self, context: Context | None, message: SaveBlocks) -> None:
        """Reads a sequence's state and queues it to be cut, or answers why it cannot."""
        started = time.monotonic()
        taken: list[Bytes] = []

        def take(size: int) -> Bytes:
            taken.append(self._take(size))
            return taken[0]

        try:
            self._require()
            if context is None:
                raise ProtocolError("a save before the model was loaded")
            state = context.save_state(message.sequence_id, message.generation, take)
            n_tokens = context.position(message.sequence_id)
        except Exception as error:
            for state in taken:
                self._give(state)
            self._answer(BlocksSaved(message.request_id, [], time.monotonic() - started, 0.0, fault_of(error)))
            return
        self._work.put(_TakenState(message, n_tokens, state, started, time.monotonic() - started))

    def restore_into(self, context: Context | None, assembled: AssembledState) -> None:
        """Gives a state to the context, and answers."""
        message = assembled.message
        started = time.monotonic()
        fault: Fault | None = None
        try:
            if context is None:
                raise ProtocolError("a restore before the model was loaded")
            context.restore_state(message.sequence_id, message.generation, assembled.state, message.n_tokens)
        except Exception as error:
            fault = fault_of(error)
        self._give(assembled.state)
        now = time.monotonic()
        n_tokens = message.n_tokens if fault is None else 0
        self._answer(BlocksRestored(message.request_id, n_tokens, [], now - assembled.started, now - started, fault))

    # --- its own thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while (work := self._work.get()) is not None:
                if self._stopping:
                    continue
                if isinstance(work, RestoreBlocks):
                    self._restore(work)
                else:
                    self._save(work)
        finally:
            if self._arena is not None:
                self._arena.close()

    def _save(self, taken: _TakenState) -> None:
        message = taken.message
        checksums: list[bytes] = []
        fault: Fault | None = None
        try:
            layout, arena = self._require()
            state = taken.state[: layout.state_bytes(taken.n_tokens)]
            check_headers(layout, message.sequence_id, taken.n_tokens, state)
            size = layout.payload_bytes(self._block_tokens)
            for number, offset in enumerate(message.slots, message.first_block):
                if self._stopping:
                    return
                payload = arena.payload(offset, size)
                arena.commit(offset, size)
                first = number * self._block_tokens
                into = np.frombuffer(payload, np.uint8)
                stop = first + self._block_tokens
                cut(layout, message.sequence_id, taken.n_tokens, state, first, stop, into)
                checksums.append(checksum_of(into))
        except Exception as error:
            fault = fault_of(error)
        self._give(taken.state)
        seconds = time.monotonic() - taken.started
        self._answer(BlocksSaved(message.request_id, checksums, seconds, taken.decode_seconds, fault))

    def _restore(self, message: RestoreBlocks) -> None:
        started = time.monotonic()
        fault: Fault | None = None
        bad: list[int] = []
        state: Bytes | None = None
        try:
            layout, arena = self._require()
            self._check(message)
            state = self._take(layout.state_bytes(message.n_tokens))
            start_state(layout, message.sequence_id, message.n_tokens, state)
            for number, block in enumerate(message.blocks):
                if self._stopping:
                    return
                payload = self._verified(layout, arena, block)
                if payload is None:
                    bad.append(number)
                elif not bad:
                    first = number * self._block_tokens
                    place(layout, message.sequence_id, message.n_tokens, state, first, payload)
        except Exception as error:
            fault = fault_of(error)
        if state is not None and fault is None and not bad:
            self._apply(AssembledState(message, state, started))
            return
        if state is not None:
            self._give(state)
        self._answer(BlocksRestored(message.request_id, 0, bad, time.monotonic() - started, 0.0, fault))

    def _check(self, message: RestoreBlocks) -> None:
        """Before a state of this length is made room for."""
        held = len(message.blocks) * self._block_tokens
        if not held - self._block_tokens < message.n_tokens <= min(held, self._n_ctx):
            raise SequenceStateError(
                f"{message.n_tokens} tokens do not fit {len(message.blocks)} blocks of {self._block_tokens} and a "
                f"context of {self._n_ctx}"
            )

    def _verified(self, layout: StateLayout, arena: ArenaMapping, block: BlockRef) -> Bytes | None:
        try:
            payload = arena.payload(block.offset, layout.payload_bytes(self._block_tokens))
        except CacheError:
            return None
        data = np.frombuffer(payload, np.uint8)
        return data if checksum_of(data) == block.checksum else None

    def _require(self) -> tuple[StateLayout, ArenaMapping]:
        if self._layout is None or self._block_tokens < 1:
            raise SequenceStateError("the model's states are not stored in blocks")
        if self._arena is None:
            raise SequenceStateError("the worker was given no arena")
        return self._layout, self._arena

    # --- buffers ------------------------------------------------------------------------------------------

    def _take(self, size: int) -> Bytes:
        """Memory for one state. WorkerBusy or CacheMemoryExhausted where there is none for it now."""
        with self._lock:
            if self._lent and self._lent + size > MAX_STATE_BYTES:
                raise WorkerBusy("bytes of saves and restores", MAX_STATE_BYTES)
            self._lent += size
            kept, self._kept = self._kept, None
        if kept is None or len(kept) < size:
            try:
                require_headroom(size)
                kept = new_bytes(size)
            except (CacheMemoryExhausted, MemoryError) as error:
                with self._lock:
                    self._lent -= size
                raise CacheMemoryExhausted(size, getattr(error, "problem", "the system gives no more")) from error
        return kept[:size]

    def _give(self, state: Bytes) -> None:
        whole = state.base
        assert isinstance(whole, np.ndarray)
        with self._lock:
            self._lent -= len(state)
            if len(whole) <= _KEPT_BYTES and (self._kept is None or len(self._kept) < len(whole)):
                self._kept = whole

    def _answer(self, answer: BlocksSaved | BlocksRestored) -> None:
        with self._lock:
            self._under_way -= 1
        self._emit(answer)
