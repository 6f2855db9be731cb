"""The disk tier as the store's processes share it: the open folder, and whether it can be used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import trio

import supervisors as sup
from paddock.cache.availability import Availability
from paddock.cache.block_store import BlockStore
from paddock.cache.folder import CacheFolder
from paddock.telemetry.loggers import get_logger

__all__ = ["DiskTier"]

_log = get_logger("paddock.cache")

_OPENING_SECONDS = 1.0
"""So long a look-up waits for a folder that is being opened; it takes a millisecond unless the disk hangs."""


class DiskTier:
    """Outlives the processes, as :class:`BlockStore` does. ``path=None`` means that there is no disk tier.

    A tier that fails is switched off with one warning, and tried again later; nothing is raised at whoever serves.
    """

    def __init__(self, path: Path | None, store: BlockStore) -> None:
        self.path = path if store.index.disk_budget > 0 else None
        self.folder: CacheFolder | None = None
        self.problem: str | None = None
        self.waiting: list[tuple[sup.From, int | None]] = []
        """Calls of Flush, with the number of the model that they are about."""
        self.woken = False
        """Whether a Wake is on its way to the writer."""
        self._store = store
        self._availability = Availability()
        self._warned = False
        self._settled = trio.Event()

    @property
    def readable(self) -> bool:
        """Whether blocks can be looked for on disk, now or as soon as the folder is open."""
        return self.folder is not None or self.state == "opening"

    @property
    def writable(self) -> bool:
        """Whether blocks can be written to disk."""
        return self.folder is not None and self.folder.writable and self._availability.works

    @property
    def state(self) -> str:
        """ "off", "opening", "on", "read-only" or "failed"."""
        if self.path is None:
            return "off"
        if self.folder is not None and not self.folder.writable:
            return "read-only"
        if not self._availability.works:
            return "failed"
        return "opening" if self.folder is None else "on"

    async def opened_folder(self) -> CacheFolder | None:
        """The folder; waits for it while it is being opened for the first time. A checkpoint."""
        with trio.move_on_after(_OPENING_SECONDS):
            await self._settled.wait()
        return self.folder

    def opening_due(self, now: float) -> bool:
        """Whether the folder is to be opened now, for the first time or again."""
        if self.path is None:
            return False
        return self._availability.retry_due(now) or (self.folder is None and self._availability.works)

    @property
    def retry_at(self) -> float | None:
        """When the folder is tried again."""
        return self._availability.retry_at

    def opened(self, folder: CacheFolder, now: float) -> None:
        """The folder could be opened. One that cannot be written to is read, and tried again later."""
        self.folder = folder
        self._settled.set()
        self.problem = folder.refusal
        if folder.writable:
            if self._warned:
                _log.info("cache folder is usable again", path=str(self.path))
            self._warned = False
            self._availability = self._availability.worked()
            self._store.spills = True
            self._store.index.make_all_due()
        else:
            self.failed(folder.refusal or "read-only", now, counted=False)

    def failed(self, problem: str, now: float, *, counted: bool = True) -> None:
        """Something that concerns the whole folder failed: nothing is written until it has been opened again."""
        self._store.counters.disk_errors += counted
        self._availability = self._availability.failed(now)
        self._settled.set()
        self.problem = problem
        self._store.spills = False
        lost = self._store.index.give_up_due()
        if not self._warned:
            self._warned = True
            _log.warning(
                "cache folder cannot be written to; serving goes on without it, and it is tried again",
                path=str(self.path),
                problem=problem,
                blocks_not_written=lost,
            )
        self.answer_waiting()

    def opening_failed(self, problem: str, now: float) -> None:
        """The folder can neither be written to nor read."""
        self.folder = None
        self._store.index.forget_files()
        self.failed(problem, now)

    def wake(self, cast: Callable[[], None]) -> None:
        """Has the writer woken, unless it is on its way."""
        if not self.woken and self.path is not None:
            self.woken = True
            cast()

    # --- flush --------------------------------------------------------------------------------------------

    def unsaved(self, model: int | None) -> int:
        """Blocks in RAM, of one model or of all, that are not on disk."""
        return self._store.index.unsaved(model)

    def answer_waiting(self) -> None:
        """Answers the calls of Flush for which nothing is left to wait for."""
        still: list[tuple[sup.From, int | None]] = []
        for from_, model in self.waiting:
            opening = self.state == "opening" and self.unsaved(model) > 0
            if opening or (self.writable and self._store.index.is_due(model)):
                if from_.pending:
                    still.append((from_, model))
            else:
                sup.reply(from_, self.unsaved(model))
        self.waiting = still
