"""The supervision tree of the store.

    cache            rest_for_one
    ├── store        answers look-ups and reservations
    ├── writer       opens the folder, writes blocks
    └── reader       reads blocks

What they work on is made once and outlives each of them: when one crashes, it and those after it are started again and
go on with every block, every lease and every reservation. A thread that reads or writes a slot is waited for by the
process that started it, so none is left behind when that process is replaced.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import supervisors as sup
from paddock.cache.block_store import BlockStore
from paddock.cache.disk_tier import DiskTier
from paddock.cache.reader import DiskReader
from paddock.cache.server import CacheServer
from paddock.cache.writer import DiskWriter

__all__ = ["STORE_KEY", "cache_spec"]

STORE_KEY = "cache"
"""Under this key the store is found in the node's registry."""

_WRITER_KEY = ("cache", "writer")
_READER_KEY = ("cache", "reader")

_THREAD_SECONDS = 30.0
"""How long reader and writer may take to end: until the thread that they wait for has done its block."""


def cache_spec(
    registry: sup.Registry, *, ram_cache_bytes: int, disk_cache_bytes: int, cache_dir: Path | None
) -> sup.ChildSpec:
    """The child spec of the ``cache`` supervisor. ``cache_dir=None`` or ``disk_cache_bytes=0``: no disk tier."""
    store = BlockStore(ram_cache_bytes, disk_cache_bytes)
    tier = DiskTier(cache_dir, store)
    server, writer, reader = (registry.via(key) for key in (STORE_KEY, _WRITER_KEY, _READER_KEY))
    children: list[Any] = [
        sup.child(CacheServer, store, tier, writer, reader, id="store", name=server),
        sup.child(DiskWriter, server, store, tier, id="writer", name=writer, shutdown=_THREAD_SECONDS),
        sup.child(DiskReader, server, store, tier, id="reader", name=reader, shutdown=_THREAD_SECONDS),
    ]
    flags = sup.SupervisorFlags(strategy="rest_for_one", intensity=5, period=60.0)
    return sup.child(sup.Supervisor, flags, children, id="cache", label="cache")
