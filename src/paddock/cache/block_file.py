"""The file of one block: a header that says what it is and how to check it, then the payload. See docs/formats.md."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import attrs
import xxhash

from paddock.cache.keys import BlockContent, block_key
from paddock.errors import BlockRefused

__all__ = [
    "COMPRESSION_NONE",
    "FORMAT_VERSION",
    "MAGIC",
    "READ_BYTES",
    "BlockHeader",
    "checksum_of",
    "encode_header",
    "file_bytes",
    "read_header",
    "read_payload",
]

MAGIC = b"\x93PKVB\r\n\x1a"
FORMAT_VERSION = 1
COMPRESSION_NONE = 0

READ_BYTES = 1 << 20
"""A payload is read and checked in pieces of this size."""

_FIXED = struct.Struct("<8sHBBI20s20s20sIQQ16s")
_CHECKSUM_BYTES = 16
_ALIGNMENT = 64
_MAX_BLOCK_TOKENS = 1 << 16


@attrs.frozen
class BlockHeader:
    """What stands before a payload."""

    identity: bytes
    content: BlockContent
    payload_bytes: int
    checksum: bytes
    """xxh3_128 of the payload, big-endian as the hash's authors write it."""


def checksum_of(payload: bytes | bytearray | memoryview) -> bytes:
    """xxh3_128 of a payload, 16 bytes."""
    return xxhash.xxh3_128_digest(payload)


def header_bytes(block_tokens: int) -> int:
    """Bytes before the payload, for blocks of so many tokens."""
    unpadded = _FIXED.size + 5 * block_tokens + _CHECKSUM_BYTES
    return -(-unpadded // _ALIGNMENT) * _ALIGNMENT


def file_bytes(block_tokens: int, payload_bytes: int) -> int:
    """Bytes of the whole file."""
    return header_bytes(block_tokens) + payload_bytes


def encode_header(header: BlockHeader) -> bytes:
    """The header as it stands in the file."""
    content = header.content
    tokens = len(content.classes)
    length = header_bytes(tokens)
    fixed = _FIXED.pack(
        MAGIC,
        FORMAT_VERSION,
        COMPRESSION_NONE,
        0,
        length,
        header.identity,
        content.key,
        content.parent,
        tokens,
        header.payload_bytes,
        header.payload_bytes,
        header.checksum,
    )
    body = (fixed + content.tokens + content.classes).ljust(length - _CHECKSUM_BYTES, b"\0")
    return body + xxhash.xxh3_128_digest(body)


def read_header(descriptor: int) -> BlockHeader:
    """Reads and checks the header of an open file, and that the file is as long as it says.

    Blocking. Raises BlockRefused, whose ``fault`` is one word, and OSError.
    """
    fixed = os.pread(descriptor, _FIXED.size, 0)
    if len(fixed) < _FIXED.size:
        raise BlockRefused("truncated", f"the file ends after {len(fixed)} bytes, inside of the header")
    (magic, version, compression, _, length, identity, key, parent, tokens, payload_bytes, stored, checksum) = (
        _FIXED.unpack(fixed)
    )  # fmt: skip
    if magic != MAGIC:
        raise BlockRefused("magic", "the file does not begin as a block of Paddock's does")
    if version != FORMAT_VERSION:
        raise BlockRefused("version", f"format version {version} is not {FORMAT_VERSION}")
    if not 1 <= tokens <= _MAX_BLOCK_TOKENS or length != header_bytes(tokens):
        raise BlockRefused("header", f"{tokens} tokens and a header of {length} bytes contradict one another")
    whole = os.pread(descriptor, length, 0)
    if len(whole) < length:
        raise BlockRefused("truncated", f"the file ends after {len(whole)} bytes, inside of the header")
    body = whole[:-_CHECKSUM_BYTES]
    if xxhash.xxh3_128_digest(body) != whole[-_CHECKSUM_BYTES:]:
        raise BlockRefused("header", "the header does not have the checksum that it states")
    if compression != COMPRESSION_NONE or stored != payload_bytes:
        raise BlockRefused("version", f"compression {compression} is not known to this version")
    size = os.fstat(descriptor).st_size
    if size != length + stored:
        raise BlockRefused("truncated", f"the file has {size} bytes instead of {length + stored}")
    start = _FIXED.size
    content = BlockContent(key, parent, body[start : start + 4 * tokens], body[start + 4 * tokens : start + 5 * tokens])
    if block_key(parent, content.tokens, content.classes) != key:
        raise BlockRefused("key", "tokens and parent do not make the key that the header states")
    return BlockHeader(identity, content, payload_bytes, checksum)


def read_payload(descriptor: int, header: BlockHeader, into: memoryview) -> None:
    """Reads the payload into ``into`` (as many bytes as the payload has) and checks it.

    ``into`` holds nonsense after a failure. Blocking. Raises BlockRefused and OSError.
    """
    digest = xxhash.xxh3_128()
    for piece in _pieces(descriptor, len(header.content.classes), into):
        digest.update(piece)
    if digest.digest() != header.checksum:
        raise BlockRefused("payload", "the payload does not have the checksum that the header states")


def _pieces(descriptor: int, tokens: int, into: memoryview) -> Iterator[memoryview]:
    at, start = 0, header_bytes(tokens)
    while at < len(into):
        piece = into[at : at + READ_BYTES]
        read = os.preadv(descriptor, [piece], start + at)
        if read == 0:
            raise BlockRefused("truncated", f"the payload ends after {at} of {len(into)} bytes")
        yield piece[:read]
        at += read
