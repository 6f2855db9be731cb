"""Blocks of one sequence, written to a folder without a store; also by other processes, which import only this."""

from __future__ import annotations

import os
from pathlib import Path

from slots import PAYLOAD_BYTES, chain_of, identity, payload_of

from paddock.cache.block_file import BlockHeader, checksum_of
from paddock.cache.folder import CacheFolder
from paddock.cache.keys import BlockContent

KIND = identity()
IDENTITY = KIND.digest().hex()
CHAIN = chain_of(list(range(800)))


def header_of(content: BlockContent) -> BlockHeader:
    return BlockHeader(KIND.digest(), content, PAYLOAD_BYTES, checksum_of(payload_of(content.key)))


def write(folder: CacheFolder, number: int = 0) -> bytes:
    """Stores one of the 200 blocks; its key."""
    content = CHAIN.content(number)
    folder.write(header_of(content), memoryview(payload_of(content.key)))
    return content.key


def temporaries(path: Path) -> list[str]:
    return [name for name in os.listdir(path / "temporary") if name.endswith(".tmp")]
