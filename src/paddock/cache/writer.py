"""The writer: opens the folder, learns what is in it, writes blocks to it, and keeps it within its budget."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import attrs
import numpy as np
import numpy.typing as npt
import trio

import supervisors as sup
from paddock.cache.block_file import BlockHeader, file_bytes
from paddock.cache.block_store import BlockStore, OpenModel
from paddock.cache.blocks import DiskBlock, RamBlock
from paddock.cache.disk_tier import DiskTier
from paddock.cache.folder import CacheFolder, ScannedFile, scan
from paddock.cache.keys import HASH_BYTES, Identity
from paddock.cache.messages import Describe, RemoveFiles, ThreadsDone, Wake
from paddock.errors import BlockRefused, CacheFolderUnusable
from paddock.telemetry.discretion import Discreet

__all__ = ["DiskWriter"]

_SLICE_SECONDS = 0.1
"""After so long the writer looks at its mailbox again."""
_SCAN_SLICE = 128
"""Files that enter the index between two checkpoints."""
_TOUCHES = 256
_RESCAN_SECONDS = 60.0
"""How often the folder is listed again, for what other processes have written and removed."""


class DiskWriter(Discreet, sup.GenServer):
    """One for each runtime. All I/O is done in threads, one call at a time."""

    def __init__(self, server: sup.Target, store: BlockStore, tier: DiskTier) -> None:
        self._server = server
        self._store = store
        self._tier = tier
        self._rescan_at = math.inf
        self._identities: list[Identity] = []

    async def init(self) -> None:
        self._tier.woken = False
        self._wake()

    def _wake(self) -> None:
        me = sup.self()
        self._tier.wake(lambda: sup.cast(me, Wake()))

    async def handle_cast(self, message: object) -> sup.Timeout | None:
        match message:
            case Wake():
                self._tier.woken = False
            case Describe(identity):
                self._identities.append(identity)
            case RemoveFiles(from_, keys):
                await self._remove(keys, evicted=False)
                sup.reply(from_, None)
            case _:
                raise TypeError(f"unknown message {type(message).__name__}")
        return await self._work()

    async def handle_timeout(self) -> sup.Timeout | None:
        return await self._work()

    async def _work(self) -> sup.Timeout | None:
        """Does what there is to do, for a while; then waits for the next message or for the next appointment."""
        tier = self._tier
        if tier.opening_due(trio.current_time()):
            await self._open()
        if trio.current_time() >= self._rescan_at:
            await self._scan()
        until = trio.current_time() + _SLICE_SECONDS
        while tier.writable and trio.current_time() < until:
            if self._identities:
                await self._describe(self._identities.pop())
            elif (block := self._store.index.next_due()) is not None:
                await self._spill(block)
            else:
                break
        tier.answer_waiting()
        if tier.writable and self._store.index.next_due() is not None:
            self._wake()
            return None
        await self._touch()
        appointment = tier.retry_at if tier.retry_at is not None else self._rescan_at
        if appointment == math.inf:
            return None
        return sup.Timeout(max(0.001, appointment - trio.current_time()))

    # --- opening ------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        tier = self._tier
        assert tier.path is not None
        if tier.folder is not None:
            await trio.to_thread.run_sync(tier.folder.close)
            self._store.index.forget_files()  # it failed: what it holds now is seen anew
        try:
            folder = await trio.to_thread.run_sync(CacheFolder.open, tier.path)
        except CacheFolderUnusable as error:
            tier.opening_failed(error.problem, trio.current_time())
            return
        tier.opened(folder, trio.current_time())
        await self._scan()

    async def _scan(self) -> None:
        """Brings the index up to date with the folder, and the folder within its budget."""
        tier, index = self._tier, self._store.index
        self._rescan_at = trio.current_time() + _RESCAN_SECONDS
        if tier.folder is None:
            return
        index.begin_listing()
        try:
            await self._take_in(tier.folder)
        finally:
            index.end_listing()
        await self._remove(index.excess_files())

    async def _take_in(self, folder: CacheFolder) -> None:
        """Lists the folder and adds what the index does not know, in small pieces for the sake of other tasks.

        What another process has removed stays in the index until it is looked for or its turn to go comes: the budget
        holds with it as it does without.
        """
        iterator = scan(folder.path)
        parts: list[_Listed] = []
        try:
            while (part := await trio.to_thread.run_sync(_next_part, iterator)) is not None:
                parts.append(part)
        except OSError as error:
            self._tier.opening_failed(error.strerror or str(error), trio.current_time())
            await trio.to_thread.run_sync(folder.close)
            return
        order = await trio.to_thread.run_sync(_newest_first, parts)
        shared: dict[tuple[str, int], DiskBlock] = {}
        for start in range(0, len(order), _SCAN_SLICE):
            self._store.index.add_older_files(
                _entry(parts[number], at, shared) for number, at in order[start : start + _SCAN_SLICE].tolist()
            )
            await trio.lowlevel.checkpoint()

    async def _remove(self, keys: Sequence[bytes], *, evicted: bool = True) -> None:
        """Removes files from the index, and then from the folder."""
        folder = self._tier.folder
        blocks = [(key, self._store.index.remove_file(key)) for key in keys]
        files = [(block.identity, key) for key, block in blocks if block is not None]
        if evicted:
            self._store.counters.evicted_disk_blocks += len(files)
        if folder is not None and folder.writable and files:
            self._store.counters.disk_errors += await trio.to_thread.run_sync(_remove_files, folder, files)

    # --- writing ------------------------------------------------------------------------------------------

    async def _spill(self, block: RamBlock) -> None:
        """Writes one block; whatever goes wrong concerns this block or the tier, never a model."""
        store, tier = self._store, self._tier
        index, folder = store.index, tier.folder
        assert folder is not None
        model = store.begin_spill(block)
        payload_bytes = model.slots.payload_bytes
        size = file_bytes(len(block.content.classes), payload_bytes)
        taken, due = False, True  # still due where this process is killed before the thread begins
        try:
            victims = index.room_on_disk(size)
            if victims is None:
                due = False
                return
            index_files = [(key, index.remove_file(key)) for key in victims]
            files = [(gone.identity, key) for key, gone in index_files if gone is not None]
            store.counters.evicted_disk_blocks += len(files)
            index.take_disk_bytes(size)
            taken = True
            header = BlockHeader(model.digest, block.content, payload_bytes, block.checksum)
            store.counters.disk_errors += await trio.to_thread.run_sync(_write, folder, files, header, model, block)
            index.add_file(block.content.key, DiskBlock(model.identity, size), counted=True)
            taken = due = False
            store.counters.spilled_blocks += 1
        except BlockRefused:
            due = False
            store.condemn_block(block)
        except OSError as error:
            due = False
            tier.failed(error.strerror or str(error), trio.current_time())
        finally:
            if taken:
                index.give_back_disk_bytes(size)
            store.end_spill(block, model, due=due)
            if model.closing:
                sup.cast(self._server, ThreadsDone(model.handle))

    async def _describe(self, identity: Identity) -> None:
        folder = self._tier.folder
        assert folder is not None
        try:
            await trio.to_thread.run_sync(folder.describe, identity)
        except OSError as error:
            self._tier.failed(error.strerror or str(error), trio.current_time())

    async def _touch(self) -> None:
        folder = self._tier.folder
        if folder is None or not self._tier.writable:
            return
        used = [(block.identity, key) for key, block in self._store.index.take_touched(_TOUCHES)]
        if used:
            await trio.to_thread.run_sync(_touch_files, folder, used)

    async def terminate(self, reason: sup.Reason) -> None:
        """Gives the writer's lock back, unless the process is about to be started again."""
        folder = self._tier.folder
        if folder is not None and isinstance(reason, sup.Shutdown):
            self._tier.folder = None
            await trio.to_thread.run_sync(folder.close)


@attrs.frozen
class _Listed:
    """Files of one subfolder, as columns: the garbage collector would stop everything for 100,000 objects."""

    identity: str
    keys: bytes
    file_bytes: npt.NDArray[np.int64]
    used_ns: npt.NDArray[np.int64]


def _next_part(iterator: Iterator[list[ScannedFile]]) -> _Listed | None:
    """In a thread: the files of the next subfolder that has any; None at the end."""
    for files in iterator:
        if files:
            return _Listed(
                identity=files[0].identity,
                keys=b"".join(file.key for file in files),
                file_bytes=np.array([file.file_bytes for file in files], np.int64),
                used_ns=np.array([file.used_ns for file in files], np.int64),
            )
    return None


def _newest_first(parts: Sequence[_Listed]) -> npt.NDArray[np.int64]:
    """In a thread: (number of the part, place in it) of each file; shape (files, 2)."""
    if not parts:
        return np.empty((0, 2), np.int64)
    places = [
        np.stack([np.full(len(part.used_ns), number), np.arange(len(part.used_ns))], axis=1)
        for number, part in enumerate(parts)
    ]
    used = np.concatenate([part.used_ns for part in parts])
    return np.concatenate(places)[np.argsort(-used, kind="stable")]


def _entry(part: _Listed, at: int, shared: dict[tuple[str, int], DiskBlock]) -> tuple[bytes, DiskBlock]:
    size = int(part.file_bytes[at])
    block = shared.get((part.identity, size))
    if block is None:
        block = shared[part.identity, size] = DiskBlock(part.identity, size)
    return part.keys[at * HASH_BYTES : (at + 1) * HASH_BYTES], block


def _write(
    folder: CacheFolder, victims: Sequence[tuple[str, bytes]], header: BlockHeader, model: OpenModel, block: RamBlock
) -> int:
    """In a thread: first the files that make room are removed, then the block is written. Failed removals."""
    failed = _remove_files(folder, victims)
    with model.slots.payload(block.slot.offset) as payload:
        folder.write(header, payload)
    return failed


def _remove_files(folder: CacheFolder, files: Sequence[tuple[str, bytes]]) -> int:
    failed = 0
    for identity, key in files:
        try:
            folder.remove(identity, key)
        except OSError:
            failed += 1
    return failed


def _touch_files(folder: CacheFolder, files: Sequence[tuple[str, bytes]]) -> None:
    for identity, key in files:
        folder.touch(identity, key)
