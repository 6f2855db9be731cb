"""Saves of one batch actor: blocks go from its sequences into slots that the store has reserved.

A sequence that ends is saved before it is released: the worker reads its state between two steps, and cuts it into
blocks on another thread. While the worker is busy with other saves, the sequence waits in a queue here, and its id is
not used by anybody else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

import attrs
import trio

import supervisors as sup
from paddock.cache.block_store import SavedBlock
from paddock.cache.client import KvStore
from paddock.cache.keys import BlockContent
from paddock.engine.batching.running import Running
from paddock.engine.batching.save_policy import NEVER, SavePolicy, blocks_to_save, next_save, save_interval
from paddock.engine.caching.messages import SavesOverdue, ServedCache
from paddock.engine.statistics import CacheUse
from paddock.engine.worker.messages import RunSaveBlocks, SaveBlocksDone
from paddock.errors import CacheError

__all__ = ["Saves"]

_UNDER_WAY: Final = 6
"""Saves that the worker is sent at once; each holds the state of a sequence. It takes a few more, for restores."""

SAVE_SECONDS = 30.0
"""How long sequences that have ended wait for a worker that answers none of its saves."""

_RESERVE_SECONDS: Final = 0.5
"""How long the batch actor waits for slots, which takes the store no time unless it is being restarted."""


@attrs.frozen
class _Save:
    entry: Running
    contents: tuple[BlockContent, ...]
    offsets: tuple[int, ...]


class Saves:
    """Belongs to one batch actor."""

    def __init__(self, store: KvStore, use: CacheUse, next_id: Callable[[], int], save_every: int) -> None:
        self._store = store
        self._use = use
        self._next_id = next_id
        self._save_every = save_every
        self.step_seconds = 0.0
        """How long a step of generated rows takes now; 0.0 where that is not known."""
        self._due: list[Running] = []
        self._ending: deque[Running] = deque()
        self._under_way: dict[int, _Save] = {}
        self._watched: int | None = None
        """How many saves had been answered when the sequences that wait began to be watched."""
        self._answered = 0
        self._broken = False

    @property
    def waiting(self) -> bool:
        """Whether there is something to send; it may have to wait for the worker's answers."""
        return bool(self._due) or self.holding

    @property
    def holding(self) -> bool:
        """Whether sequences that have ended wait for their save."""
        return bool(self._ending)

    @property
    def busy(self) -> bool:
        """Whether anything is still to be sent, or to be answered by the worker."""
        return self.waiting or bool(self._under_way)

    @property
    def under_way(self) -> int:
        """Saves that the worker has not answered, and those that wait to be sent to it."""
        return len(self._under_way) + len(self._ending)

    def holds(self, sequence_id: int) -> bool:
        """Whether a sequence that has ended waits for its save, so that nobody else can have its id yet."""
        return any(entry.lease.sequence_id == sequence_id for entry in self._ending)

    def computed(self, entry: Running) -> None:
        """More of a request's tokens are in the cache. Called for every row of every step."""
        if entry.cached >= entry.save_at:
            if entry.chain is None or entry.unsaveable or self._broken:
                entry.save_at = NEVER
            else:
                self._due.append(entry)

    def ended(self, entry: Running) -> bool:
        """A request has ended; True where its sequence is to be kept until :meth:`send` says that it can go."""
        if self._broken or not entry.opened or entry.chain is None or entry.unsaveable:
            return False
        if not self._blocks(entry, ending=True):
            return False
        self._ending.append(entry)
        return True

    def _policy(self, entry: Running) -> SavePolicy:
        assert entry.chain is not None
        block_tokens = entry.chain.block_tokens
        return SavePolicy(block_tokens, save_interval(self._save_every, block_tokens, self.step_seconds))

    def _blocks(self, entry: Running, *, ending: bool) -> range:
        return blocks_to_save(
            self._policy(entry),
            saved=entry.saved_blocks,
            cached=entry.cached,
            prompt_length=entry.prompt_length,
            ending=ending,
        )

    async def send(
        self, port: sup.Pid[Any], cache: ServedCache, runs: Callable[[Running], bool], *, most: int
    ) -> list[Running]:
        """Reserves slots and sends at most ``most`` saves of what is due to the worker, no more than it takes; the
        sequences that can be released.

        A checkpoint where there is something to save.
        """
        released: list[Running] = []
        most = len(self._under_way) + most
        while self._ending and len(self._under_way) < min(most, _UNDER_WAY):
            entry = self._ending[0]
            await self._save(entry, self._blocks(entry, ending=True), port, cache)
            self._ending.popleft()
            released.append(entry)
        if self._ending and self._watched is None:
            self._watched = self._answered
            sup.spawn_link(_watch, sup.self(), label="saves")
        due, self._due = self._due, []
        for entry in due:
            # A reply's own blocks are due again after its next token when they find no place now.
            if runs(entry) and len(self._under_way) < min(most, _UNDER_WAY):
                await self._save(entry, self._blocks(entry, ending=False), port, cache)
        return released

    async def _save(self, entry: Running, blocks: range, port: sup.Pid[Any], cache: ServedCache) -> None:
        if blocks:
            await self._reserve_and_send(entry, blocks, port, cache)
        entry.save_at = next_save(self._policy(entry), saved=entry.saved_blocks, prompt_length=entry.prompt_length)

    async def _reserve_and_send(self, entry: Running, blocks: range, port: sup.Pid[Any], cache: ServedCache) -> None:
        chain = entry.extend_chain()
        assert chain is not None
        offsets: list[int] = []
        try:
            with trio.move_on_after(_RESERVE_SECONDS):
                offsets = await self._store.reserve(cache.handle, len(blocks))
        except CacheError:
            pass
        if len(offsets) < len(blocks):
            entry.unsaveable = True
            self._use.refused_blocks += len(blocks) - len(offsets)
        entry.saved_blocks = blocks.stop
        if not offsets:
            return
        contents = tuple(chain.content(number) for number in blocks[: len(offsets)])
        work_id = self._next_id()
        self._under_way[work_id] = _Save(entry, contents, tuple(offsets))
        lease = entry.lease
        sup.cast(
            port,
            RunSaveBlocks(sup.self(), work_id, lease.sequence_id, lease.generation, blocks.start, offsets),
        )

    def overdue(self) -> list[Running]:
        """Sequences have waited: where the worker has not answered any save meanwhile, it is asked for none any more.
        The sequences that can be released. Slots that it was to fill stay reserved as long as it lives."""
        answered, self._watched = self._answered - (self._watched or 0), None
        if answered or not self._ending:
            return []
        self._broken = True
        released = list(self._ending)
        self._ending.clear()
        self._due.clear()
        return released

    def done(self, message: SaveBlocksDone, cache: ServedCache | None) -> None:
        """The worker has answered: its blocks can be found from now on, or their slots are free again."""
        save = self._under_way.pop(message.work_id, None)
        if save is None or cache is None:
            return
        self._answered += 1
        use = self._use
        use.save_seconds += message.seconds
        use.save_decode_seconds += message.decode_seconds
        if message.error is not None or len(message.checksums) != len(save.offsets):
            use.failed_saves += 1
            save.entry.unsaveable = True  # what is saved behind a gap would never be found
            self._store.give_back(cache.handle, save.offsets)
            return
        use.saves += 1
        use.saved_blocks += len(save.offsets)
        blocks = zip(save.contents, save.offsets, message.checksums, strict=True)
        self._store.publish(cache.handle, [SavedBlock(*block) for block in blocks])


async def _watch(batch: sup.Pid[Any]) -> None:
    """Body of a watcher."""
    await trio.sleep(SAVE_SECONDS)
    sup.cast(batch, SavesOverdue())
