"""What the processes of one model's subtree say to each other about its cache."""

from __future__ import annotations

from typing import Any

import attrs

import supervisors as sup
from paddock.cache.block_store import ModelHandle, PinnedPrefix
from paddock.engine.batching.sequences import Lease
from paddock.engine.caching.prefix import ChainRules
from paddock.engine.worker.protocol import Loaded

__all__ = ["CacheOpened", "OpenCache", "PrefixFound", "PrefixUsed", "RestoreOverdue", "SavesOverdue", "ServedCache"]


@attrs.frozen
class ServedCache:
    """What the batch actor needs to know of the model's place in the store."""

    handle: ModelHandle
    rules: ChainRules


@attrs.frozen
class OpenCache:
    """Cast machine -> keeper: this worker has loaded the model; answered with :class:`CacheOpened`."""

    reply_to: sup.Pid[Any]
    port: sup.Pid[Any]
    loaded: Loaded = attrs.field(repr=False)


@attrs.frozen
class CacheOpened:
    """Cast keeper -> machine: requests may look up and save from now on; ``cache`` is None where they cannot."""

    port: sup.Pid[Any]
    loaded: Loaded = attrs.field(repr=False)
    cache: ServedCache | None


@attrs.frozen
class PrefixFound:
    """Cast holder -> batch: the stored beginning of a request's tokens; None where the store had no answer in time.

    ``holder`` keeps it pinned until it is sent :class:`PrefixUsed`.
    """

    lease: Lease
    holder: sup.Pid[Any]
    prefix: PinnedPrefix | None


@attrs.frozen
class RestoreOverdue:
    """Cast holder -> batch: its prefix was found long ago, and has not been put in place."""

    holder: sup.Pid[Any]


@attrs.frozen
class SavesOverdue:
    """Cast watcher -> batch: sequences have waited long for their saves."""


@attrs.frozen
class PrefixUsed:
    """Sent batch -> holder: the slots may be used for something else."""
