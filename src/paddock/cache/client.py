"""What the engine calls: the store's interface, as plain methods."""

from __future__ import annotations

from collections.abc import Sequence

import supervisors as sup
from paddock.cache.block_store import ModelHandle, PinnedPrefix, SavedBlock
from paddock.cache.blocks import Slots
from paddock.cache.keys import Identity
from paddock.cache.messages import (
    CloseModel,
    Condemn,
    FindPrefix,
    Flush,
    Forget,
    GiveBack,
    LeaveRam,
    OpenModelRequest,
    Publish,
    Release,
    Reserve,
    Statistics,
)
from paddock.cache.statistics import CacheStatistics
from paddock.cache.tree import STORE_KEY
from paddock.errors import CacheError

__all__ = ["KvStore"]

_SECONDS = 30.0


class KvStore:
    """The store of one runtime, from any of its tasks.

    What a calling process was given (a prefix, reserved slots) is taken back when it ends; a task outside any process
    has to give it back itself. The async methods are checkpoints; cancelled, they leave nothing behind. Each raises
    CacheError when the store is being restarted or does not answer in time: whoever calls goes on without it.
    """

    def __init__(self, registry: sup.Registry) -> None:
        self._store = registry.via(STORE_KEY)

    async def _call(self, request: object, seconds: float = _SECONDS) -> object:
        try:
            return await sup.call(self._store, request, timeout=seconds)
        except (sup.NoProc, sup.ServerExited, sup.CallTimeout) as error:
            raise CacheError(f"the cache does not answer: {error}") from error

    async def open_model(self, identity: Identity, slots: Slots) -> ModelHandle:
        """Takes in a model's arena, whose slots the store alone allocates and frees until :meth:`close_model`."""
        handle = await self._call(OpenModelRequest(identity, slots))
        assert isinstance(handle, ModelHandle)
        return handle

    async def close_model(self, handle: ModelHandle) -> None:
        """Gives all of the arena's slots back; blocks that are not on disk are lost (:meth:`flush` first). Idempotent.

        When it returns, no thread of the store reads or writes the arena. No worker may use a slot any more.
        """
        await self._call(CloseModel(handle))

    async def longest_prefix(
        self, handle: ModelHandle, keys: Sequence[bytes], most: int | None = None, *, timeout: float = _SECONDS
    ) -> PinnedPrefix:
        """The longest stored prefix of the sequence with these keys, at most ``most`` blocks, in RAM and pinned.

        Blocks on disk are read into slots and verified first. The prefix may be empty; one that is not has to be
        given to :meth:`release`.
        """
        count = len(keys) if most is None else min(most, len(keys))
        prefix = await self._call(FindPrefix(handle, tuple(keys[:count]), count), timeout)
        assert isinstance(prefix, PinnedPrefix)
        return prefix

    def release(self, prefix: PinnedPrefix) -> None:
        """Lets go of a prefix, when the worker has answered its RestoreBlocks or has died. Idempotent. Synchronous."""
        if prefix.blocks:
            sup.cast(self._store, Release(prefix.number))

    async def reserve(self, handle: ModelHandle, count: int) -> list[int]:
        """Offsets of ``count`` slots to save blocks in, fewer or none where the budget does not hold more.

        Blocks that were not used for longest make room. Slots are counted against the budget from here on.
        """
        offsets = await self._call(Reserve(handle, count))
        assert isinstance(offsets, list)
        return offsets

    def publish(self, handle: ModelHandle, saved: Sequence[SavedBlock]) -> None:
        """Makes blocks findable that a worker has saved in reserved slots, and has them written to disk. Synchronous.

        In a sequence's order. A block that is known already costs nothing: its slot is freed.
        """
        sup.cast(self._store, Publish(handle, tuple(saved)))

    def give_back(self, handle: ModelHandle, offsets: Sequence[int]) -> None:
        """Gives reserved slots back that no worker writes to any more. Idempotent. Synchronous."""
        sup.cast(self._store, GiveBack(handle, tuple(offsets)))

    def condemn(self, keys: Sequence[bytes]) -> None:
        """Drops blocks that the worker found to be wrong (BlocksRestored.bad). Synchronous."""
        sup.cast(self._store, Condemn(tuple(keys)))

    async def forget(self, keys: Sequence[bytes]) -> None:
        """Drops blocks for good, in RAM and on disk, and those of them that are being saved at this moment."""
        await self._call(Forget(tuple(keys)))

    def leave_ram(self, handle: ModelHandle, keys: Sequence[bytes]) -> None:
        """Frees the memory of blocks that are on disk as well and that nobody relies on. Synchronous."""
        sup.cast(self._store, LeaveRam(handle, tuple(keys)))

    async def flush(self, handle: ModelHandle | None = None, *, timeout: float = _SECONDS) -> int:
        """Waits until the blocks of a model, or of all, are on disk; the number of those in RAM that are not.

        Returns at once where nothing can be written. Raises CacheError after ``timeout`` seconds.
        """
        left = await self._call(Flush(handle), timeout)
        assert isinstance(left, int)
        return left

    async def statistics(self) -> CacheStatistics:
        """The store as it stands."""
        statistics = await self._call(Statistics())
        assert isinstance(statistics, CacheStatistics)
        return statistics
