"""The reader: fills a look-up's lease with blocks from disk, a few megabytes at a time, one look-up after another."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import trio

import supervisors as sup
from paddock.cache.block_store import BlockStore, OpenModel, SavedBlock
from paddock.cache.blocks import DiskBlock
from paddock.cache.disk_tier import DiskTier
from paddock.cache.folder import CacheFolder
from paddock.cache.keys import BlockContent
from paddock.cache.messages import FetchPrefix, ThreadsDone
from paddock.errors import BlockRefused, CacheError
from paddock.telemetry.discretion import Discreet

__all__ = ["DiskReader"]

_BATCH_BYTES = 8 << 20
"""So much is read before another look-up has its turn."""
_PROBES = 32
"""Names that are looked for at once beyond what the index knows, for what another process has written meanwhile."""


@attrs.frozen
class _Read:
    """What became of one block: its content and checksum, or why there is none."""

    key: bytes
    offset: int
    content: BlockContent | None = None
    checksum: bytes = b""
    fault: str = ""
    """ "" without a fault, "missing", "memory", "io", or what BlockRefused says."""


class DiskReader(Discreet, sup.GenServer):
    """One for each runtime. Look-ups take turns, so that a long one does not keep the others waiting."""

    def __init__(self, server: sup.Target, store: BlockStore, tier: DiskTier) -> None:
        self._server = server
        self._store = store
        self._tier = tier

    async def handle_cast(self, message: object) -> None:
        if not isinstance(message, FetchPrefix):
            raise TypeError(f"unknown message {type(message).__name__}")
        more = False
        try:
            more = await self._fetch_some(message)
        finally:
            if more:
                sup.cast(sup.self(), message)
            else:
                self._answer(message)

    def _answer(self, fetch: FetchPrefix) -> None:
        """Answers with what the lease holds; nobody there any more, it is released."""
        if not self._store.has_lease(fetch.lease):
            sup.reply_error(fetch.from_, CacheError("the model or the process that asked is gone"))
            return
        prefix = self._store.prefix_of(fetch.lease, fetch.find.handle.identity.block_tokens)
        if fetch.from_.pending:
            sup.reply(fetch.from_, prefix)
        else:
            self._store.release(fetch.lease)

    async def _fetch_some(self, fetch: FetchPrefix) -> bool:
        """One batch; whether there may be more."""
        store, index, find = self._store, self._store.index, fetch.find
        folder = await self._tier.opened_folder()
        if folder is None or not fetch.from_.pending or not store.has_lease(fetch.lease):
            return False
        try:
            model = store.model(find.handle)
        except CacheError:
            return False
        held = store.pin_run(fetch.lease, find.keys, find.most)
        wanted: list[bytes] = []
        for key in find.keys[held : find.most]:
            if index.in_ram(find.handle.number, key) is not None or index.on_disk(key) is None:
                break
            wanted.append(key)
            if len(wanted) * model.slots.payload_bytes >= _BATCH_BYTES:
                break
        if wanted:
            return await self._read(fetch, model, folder, wanted)
        if held >= find.most:
            return False
        return await self._probe(model, folder, find.keys[held : min(held + _PROBES, find.most)])

    async def _read(self, fetch: FetchPrefix, model: OpenModel, folder: CacheFolder, wanted: list[bytes]) -> bool:
        store = self._store
        offsets = store.reserve(fetch.find.handle, len(wanted), fetch.owner)
        if not offsets:
            return False
        results: list[_Read] = []
        model.io += 1
        try:
            results = await trio.to_thread.run_sync(_read_blocks, folder, model, wanted, offsets)
        finally:
            model.io -= 1
            if model.closing:
                sup.cast(self._server, ThreadsDone(model.handle))
            else:
                self._take_in(fetch, results, offsets)
        return len(results) == len(wanted) and not results[-1].fault and store.has_lease(fetch.lease)

    def _take_in(self, fetch: FetchPrefix, results: Sequence[_Read], offsets: Sequence[int]) -> None:
        """Publishes what was read, drops what was refused, gives back the slots that stay empty."""
        store, handle = self._store, fetch.find.handle
        good = [SavedBlock(read.content, read.offset, read.checksum) for read in results if read.content is not None]
        store.publish(handle, good, spill=False)
        store.counters.fetched_blocks += len(good)
        if store.has_lease(fetch.lease):
            store.count_fetched(fetch.lease, len(good))
            store.pin_run(fetch.lease, fetch.find.keys, fetch.find.most)
        store.give_back(handle, offsets)
        for read in results:
            if read.fault not in ("", "memory"):
                store.index.remove_file(read.key)
                store.counters.disk_errors += read.fault == "io"
                store.counters.verification_failures += read.fault not in ("io", "missing")

    async def _probe(self, model: OpenModel, folder: CacheFolder, keys: Sequence[bytes]) -> bool:
        sizes = await trio.to_thread.run_sync(_sizes, folder, model.identity, keys)
        for key, size in zip(keys, sizes, strict=False):
            self._store.index.add_file(key, DiskBlock(model.identity, size))
        return bool(sizes)


def _read_blocks(folder: CacheFolder, model: OpenModel, keys: Sequence[bytes], offsets: Sequence[int]) -> list[_Read]:
    """In a thread: reads blocks into slots, up to the first that cannot be had."""
    results: list[_Read] = []
    buffer = memoryview(bytearray(model.slots.payload_bytes))  # verified here before it goes into a slot
    for key, offset in zip(keys, offsets, strict=False):
        read = _read_block(folder, model, key, offset, buffer)
        results.append(read)
        if read.fault:
            break
    return results


def _read_block(folder: CacheFolder, model: OpenModel, key: bytes, offset: int, buffer: memoryview) -> _Read:
    try:
        header = folder.read(model.identity, key, buffer)
        model.slots.write(offset, buffer)
        return _Read(key, offset, header.content, header.checksum)
    except FileNotFoundError:
        return _Read(key, offset, fault="missing")
    except BlockRefused as refused:
        fault = refused.fault
    except CacheError:
        return _Read(key, offset, fault="memory")
    except OSError:
        fault = "io"
    try:
        folder.remove(model.identity, key)  # so that the next save makes it anew
    except OSError:
        pass
    return _Read(key, offset, fault=fault)


def _sizes(folder: CacheFolder, identity: str, keys: Sequence[bytes]) -> list[int]:
    """In a thread: sizes of the files of ``keys``, up to the first that is not there."""
    sizes: list[int] = []
    for key in keys:
        try:
            size = folder.size_of(identity, key)
        except OSError:
            size = None
        if size is None:
            break
        sizes.append(size)
    return sizes
