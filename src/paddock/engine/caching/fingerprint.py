"""What a model file's content is, in a few bytes: blocks of one model must never be taken for those of another."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from pathlib import Path
from typing import Final

__all__ = ["fingerprint_of"]

WHOLE_BYTES: Final = 1 << 30
"""A file up to this size is hashed whole, about 2 s."""
PIECE_BYTES: Final = 1 << 16
"""Of a longer one, the first ``16 * PIECE_BYTES`` and this much out of every further ``STRIDE_BYTES``."""
STRIDE_BYTES: Final = 1 << 20
_REMEMBERED: Final = 64

_known: OrderedDict[tuple[int, ...], str] = OrderedDict()
"""By device, inode, size, time of change and ``whole_bytes``."""


def fingerprint_of(path: Path, whole_bytes: int = WHOLE_BYTES) -> str:
    """Hashes a GGUF file: its size, its beginning (all of the header but for huge vocabularies), and its content.

    A file of more than ``whole_bytes`` is sampled at equal distances: other weights of the same shape differ
    everywhere. Two files that differ only between the samples would have one fingerprint. A file that has not changed
    since is not read again. Blocking. Raises OSError.
    """
    with open(path, "rb", buffering=0) as file:
        found = os.fstat(file.fileno())
        size = found.st_size
        signature = (found.st_dev, found.st_ino, size, found.st_mtime_ns, found.st_ctime_ns, whole_bytes)
        if (known := _known.get(signature)) is not None:
            return known
        digest = hashlib.blake2b(digest_size=20)
        digest.update(size.to_bytes(8, "little"))
        if size <= whole_bytes:
            while piece := file.read(STRIDE_BYTES):
                digest.update(piece)
        else:
            digest.update(os.pread(file.fileno(), 16 * PIECE_BYTES, 0))
            for offset in range(STRIDE_BYTES, size, STRIDE_BYTES):
                digest.update(os.pread(file.fileno(), PIECE_BYTES, offset))
            digest.update(os.pread(file.fileno(), PIECE_BYTES, max(0, size - PIECE_BYTES)))
    _known[signature] = digest.hexdigest()
    while len(_known) > _REMEMBERED:
        _known.popitem(last=False)
    return _known[signature]
