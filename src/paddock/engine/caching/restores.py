"""Look-ups and restores of one batch actor: how a request comes to its cached prefix.

    admitted -> a holder process asks the store -> found -> the worker restores -> rows
                                                \\-> nothing, or no answer in time -> rows

The *holder* is a process of its own for each look-up, because the blocks that a look-up pins are those of the process
that asked, and because reading from disk may take long. One restore at a time goes to the worker: putting a state in
place keeps the decode thread from decoding, and streams that run must not wait for several in a row.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import trio

import supervisors as sup
from paddock.cache.block_store import ModelHandle, PinnedPrefix
from paddock.cache.client import KvStore
from paddock.cache.resume import resume_point
from paddock.engine.batching.running import Running
from paddock.engine.caching.messages import PrefixFound, PrefixUsed, RestoreOverdue, ServedCache
from paddock.engine.requests.messages import PrefixRestored
from paddock.engine.statistics import CacheUse
from paddock.engine.worker.messages import RestoreBlocksDone, RunRestoreBlocks, RunStep
from paddock.engine.worker.protocol import BlockRef
from paddock.errors import CacheError
from paddock.telemetry.discretion import discreet

__all__ = ["Restores", "hold_prefix", "look_up_seconds"]

_ATTEMPTS = 3
"""Look-ups of one request: a block that fails its verification is dropped, and what is left is looked up again."""

RESTORE_SECONDS = 30.0
"""How long a prefix that was found may take to be in place, its turn behind others included."""


def look_up_seconds(tokens: int) -> float:
    """How long a request of so many tokens waits for the store: no longer than computing them would take about."""
    return min(10.0, 0.25 + 0.001 * tokens)


@attrs.define(eq=False)
class _Restore:
    """One request on its way to its prefix."""

    entry: Running
    keys: Sequence[bytes]
    holder: sup.Pid[Any]
    attempts: int
    prefix: PinnedPrefix | None = None
    tokens: int = 0


class Restores:
    """Bookkeeping without a state of its own beyond what is under way. Synchronous; belongs to one batch actor."""

    def __init__(self, store: KvStore, use: CacheUse, next_id: Callable[[], int]) -> None:
        self._store = store
        self._use = use
        self._next_id = next_id
        self._looking: dict[sup.Pid[Any], _Restore] = {}
        self._ready: deque[_Restore] = deque()
        self._in_flight: _Restore | None = None
        self._work_id = 0

    def begin(self, entry: Running, cache: ServedCache, attempts: int = 0) -> None:
        """Looks for a stored prefix of an admitted request, which has no rows until that has ended."""
        chain = entry.chain
        if chain is None:
            return
        keys = tuple(chain.keys[: (len(entry.tokens) - 1) // chain.block_tokens])
        if not keys:
            return
        entry.restoring = True
        holder = sup.spawn_link(
            hold_prefix, sup.self(), entry, self._store, cache.handle, keys, look_up_seconds(len(entry.tokens)),
            label="prefix",
        )  # fmt: skip
        self._looking[holder] = _Restore(entry, keys, holder, attempts + 1)

    def found(self, message: PrefixFound, cache: ServedCache | None, *, runs: bool) -> None:
        """The store has answered. ``runs``: whether the request still does."""
        restore = self._looking.pop(message.holder, None)
        if restore is None:
            return
        chain, prefix = restore.entry.chain, message.prefix
        if cache is None or not runs or chain is None or prefix is None or not prefix.blocks:
            self._end(restore)
            return
        restore.prefix = prefix
        restore.tokens = resume_point(
            chain.generated, prefix.tokens, chain.block_tokens, cache.rules.minimum_chunk
        )  # fmt: skip
        restore.entry.saved_blocks = len(prefix.blocks)
        if restore.tokens == 0:
            self._end(restore)
        else:
            self._ready.append(restore)

    def send_next(self, port: sup.Pid[Any], may_open: Callable[[Running], bool]) -> None:
        """Sends the next restore to the worker, when none is there. ``may_open``: whether the request still runs and
        its sequence can be opened now."""
        while self._in_flight is None and self._ready:
            restore = self._ready[0]
            if not may_open(restore.entry):
                return
            self._ready.popleft()
            entry, prefix = restore.entry, restore.prefix
            assert prefix is not None
            assert entry.chain is not None
            lease = entry.lease
            entry.opened = True
            self._in_flight, self._work_id = restore, self._next_id()
            count = -(-restore.tokens // entry.chain.block_tokens)
            blocks = [BlockRef(block.offset, block.checksum) for block in prefix.blocks[:count]]
            # Right behind each other, and also behind a step that is in flight: nothing waits for the answers.
            me = sup.self()
            sup.cast(port, RunStep(me, self._next_id(), [], [entry.opening()], []))
            sup.cast(
                port,
                RunRestoreBlocks(me, self._work_id, lease.sequence_id, lease.generation, blocks, restore.tokens),
            )

    def forget(self, entry: Running) -> None:
        """The request has ended. What the worker was sent is waited for all the same."""
        for restore in [ready for ready in self._ready if ready.entry is entry]:
            self._ready.remove(restore)
            self._end(restore)

    def done(self, message: RestoreBlocksDone, cache: ServedCache | None, *, runs: Callable[[Running], bool]) -> None:
        """The worker has answered: the request goes on behind its prefix, or looks again, or computes all of it."""
        restore = self._in_flight
        if restore is None or message.work_id != self._work_id:
            return
        self._in_flight = None
        entry, use = restore.entry, self._use
        use.restore_seconds += message.seconds
        use.restore_decode_seconds += message.decode_seconds
        if message.bad:
            use.corrupt_blocks += len(message.bad)
            self._store.condemn([restore.keys[index] for index in message.bad])
        self._end(restore)
        if not runs(entry):
            return
        if message.error is None and not message.bad and message.n_tokens == restore.tokens:
            entry.cached = restore.tokens
            use.restores += 1
            use.cached_tokens += restore.tokens
            sup.cast(entry.request, PrefixRestored(restore.tokens))
            return
        self._compute_all(entry)
        if message.bad and cache is not None and restore.attempts < _ATTEMPTS:
            self.begin(entry, cache, restore.attempts)

    def overdue(self, message: RestoreOverdue) -> None:
        """The worker has not answered in time: the request computes its prompt, and others may be restored."""
        restore = self._in_flight
        if restore is not None and restore.holder is message.holder:
            self._in_flight = None
        else:
            restore = next((ready for ready in self._ready if ready.holder is message.holder), None)
            if restore is None:
                return
            self._ready.remove(restore)
        self._compute_all(restore.entry)
        self._end(restore)

    def _compute_all(self, entry: Running) -> None:
        """What the worker holds of the sequence is not known: it is opened anew with its first row, which an answer
        that comes late finds there, and leaves."""
        self._use.failed_restores += 1
        entry.opened = False
        entry.saved_blocks = entry.save_at = 0

    def _end(self, restore: _Restore) -> None:
        restore.entry.restoring = False
        sup.send(restore.holder, PrefixUsed())


@discreet
async def hold_prefix(
    batch: sup.Pid[Any], entry: Running, store: KvStore, handle: ModelHandle, keys: tuple[bytes, ...], seconds: float
) -> None:
    """Body of a holder: asks the store, tells the batch actor, and keeps the blocks pinned until they were used."""
    prefix: PinnedPrefix | None = None
    try:
        prefix = await store.longest_prefix(handle, keys, timeout=seconds)
    except CacheError:
        pass  # off, full, broken or slow: the request computes its prompt
    sup.cast(batch, PrefixFound(entry.lease, sup.self(), prefix))
    with trio.move_on_after(RESTORE_SECONDS) as patience:
        await sup.receive()
    if patience.cancelled_caught:
        sup.cast(batch, RestoreOverdue(sup.self()))
        await sup.receive()
    if prefix is not None:
        store.release(prefix)
