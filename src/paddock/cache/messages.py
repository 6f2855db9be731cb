"""What the store's processes are told. Casts unless their docstring says "call"."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

import supervisors as sup
from paddock.cache.block_store import ModelHandle, SavedBlock
from paddock.cache.blocks import Slots
from paddock.cache.keys import Identity

__all__ = [
    "CloseModel",
    "Condemn",
    "Describe",
    "FetchPrefix",
    "FindPrefix",
    "Flush",
    "GiveBack",
    "OpenModelRequest",
    "Publish",
    "Release",
    "Reserve",
    "Statistics",
    "ThreadsDone",
    "Wake",
]


@attrs.frozen
class OpenModelRequest:
    """Call: takes in a model's arena; answered with its ModelHandle."""

    identity: Identity
    slots: Slots


@attrs.frozen
class CloseModel:
    """Call: gives all slots of a model back; answered with None once no thread uses any."""

    handle: ModelHandle


@attrs.frozen
class FindPrefix:
    """Call: the longest stored prefix of at most ``most`` blocks; answered with a PinnedPrefix."""

    handle: ModelHandle
    keys: Sequence[bytes]
    most: int


@attrs.frozen
class Reserve:
    """Call: ``count`` slots, or as many as there is room for; answered with the list of their offsets."""

    handle: ModelHandle
    count: int


@attrs.frozen
class Publish:
    """Blocks have been saved in reserved slots."""

    handle: ModelHandle
    saved: Sequence[SavedBlock]


@attrs.frozen
class GiveBack:
    """Reserved slots are not needed."""

    handle: ModelHandle
    offsets: Sequence[int]


@attrs.frozen
class Release:
    """A prefix is no longer needed in its slots; ``number`` is PinnedPrefix.number."""

    number: int


@attrs.frozen
class Condemn:
    """A worker found that the payloads of these blocks are not what they should be."""

    keys: Sequence[bytes]


@attrs.frozen
class Forget:
    """Call: drop these blocks for good, wherever they are; answered when their files are gone."""

    keys: Sequence[bytes]


@attrs.frozen
class RemoveFiles:
    """From the store to the writer: remove what is on disk of these blocks, then answer the call."""

    from_: sup.From
    keys: Sequence[bytes]


@attrs.frozen
class LeaveRam:
    """Free the slots of these blocks of a model, where they are on disk as well and nobody relies on them."""

    handle: ModelHandle
    keys: Sequence[bytes]


@attrs.frozen
class Flush:
    """Call: wait until what is due is on disk; answered with the number of blocks in RAM that are not."""

    handle: ModelHandle | None


@attrs.frozen
class Statistics:
    """Call: answered with CacheStatistics."""


@attrs.frozen
class FetchPrefix:
    """From the store to the reader: fill a lease from disk, then answer the call."""

    from_: sup.From
    find: FindPrefix
    lease: int
    owner: sup.Pid[object] | None


@attrs.frozen
class Describe:
    """To the writer: write down what an identity is made of."""

    identity: Identity


@attrs.frozen
class Wake:
    """To the writer: there may be something to do."""


@attrs.frozen
class ThreadsDone:
    """From reader and writer to the store: a thread no longer uses the arena of a model that is closing."""

    handle: ModelHandle
