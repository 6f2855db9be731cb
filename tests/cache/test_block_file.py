"""The format of docs/formats.md: what is written is read back, and nothing else is ever taken for a block."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import xxhash
from slots import PAYLOAD_BYTES, chain_of, identity, payload_of

from paddock.cache.block_file import BlockHeader, checksum_of, encode_header, file_bytes
from paddock.cache.folder import read_block
from paddock.cache.keys import BlockContent
from paddock.errors import BlockRefused

KIND = identity()
CONTENT = chain_of([1, 2, 3, 4, 5, 6, 7, 8]).content(1)
PAYLOAD = payload_of(CONTENT.key)
HEADER = BlockHeader(KIND.digest(), CONTENT, PAYLOAD_BYTES, checksum_of(PAYLOAD))
STORED = encode_header(HEADER) + PAYLOAD


def read(path: Path, key: bytes = CONTENT.key, kind: str = KIND.digest().hex()) -> bytes:
    payload = bytearray(PAYLOAD_BYTES)
    assert read_block(path, kind, key, memoryview(payload)) == HEADER
    return bytes(payload)


def fault_of(path: Path, key: bytes = CONTENT.key, kind: str = KIND.digest().hex()) -> str:
    with pytest.raises(BlockRefused) as refused:
        read(path, key, kind)
    return refused.value.fault


@pytest.fixture
def stored(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        path = tmp_path / "block.kv"
        path.write_bytes(content)
        return path

    return write


def test_what_is_written_is_read_back(stored: Callable[[bytes], Path]) -> None:
    assert read(stored(STORED)) == PAYLOAD
    assert len(STORED) == file_bytes(4, PAYLOAD_BYTES)


def test_the_bytes_are_those_that_the_documentation_describes() -> None:
    assert STORED[:8] == b"\x93PKVB\r\n\x1a"
    version, compression, reserved, header_bytes = struct.unpack_from("<HBBI", STORED, 8)
    assert (version, compression, reserved, header_bytes) == (1, 0, 0, 192)
    assert STORED[16:36] == KIND.digest()
    assert STORED[36:56] == CONTENT.key
    assert STORED[56:76] == CONTENT.parent
    assert struct.unpack_from("<IQQ", STORED, 76) == (4, PAYLOAD_BYTES, PAYLOAD_BYTES)
    assert STORED[96:112] == xxhash.xxh3_128_digest(PAYLOAD)
    assert STORED[112:128] == struct.pack("<4i", 5, 6, 7, 8)
    assert STORED[128:132] == b"\0\0\0\0"
    assert STORED[132:176] == bytes(44)
    assert STORED[176:192] == xxhash.xxh3_128_digest(STORED[:176])
    assert STORED[192:] == PAYLOAD


def test_no_byte_can_be_flipped_without_being_noticed(stored: Callable[[bytes], Path]) -> None:
    sampled = [*range(192), *range(192, len(STORED), 61), len(STORED) - 1]
    for position in sampled:
        for bit in (0x01, 0x80):
            changed = bytearray(STORED)
            changed[position] ^= bit
            assert fault_of(stored(bytes(changed))) in ("magic", "version", "header", "truncated", "payload")


def test_no_length_but_the_right_one_is_taken(stored: Callable[[bytes], Path]) -> None:
    for length in [*range(200), *range(200, len(STORED), 61), len(STORED) - 1]:
        assert fault_of(stored(STORED[:length])) == "truncated"
    assert fault_of(stored(STORED + b"\0")) == "truncated"


def test_another_identity_or_key_than_was_looked_for_is_refused(stored: Callable[[bytes], Path]) -> None:
    path = stored(STORED)
    assert fault_of(path, kind=identity(build="other").digest().hex()) == "identity"
    assert fault_of(path, key=CONTENT.parent) == "key"


def with_header_checksum(header: bytes) -> bytes:
    return header[:-16] + xxhash.xxh3_128_digest(header[:-16])


def test_tokens_that_do_not_make_the_key_are_refused_even_under_a_right_checksum(
    stored: Callable[[bytes], Path],
) -> None:
    forged = BlockHeader(
        HEADER.identity,
        BlockContent(CONTENT.key, CONTENT.parent, b"\x09" * 16, CONTENT.classes),
        PAYLOAD_BYTES,
        HEADER.checksum,
    )
    assert fault_of(stored(encode_header(forged) + PAYLOAD)) == "key"


def test_a_compression_that_is_not_known_is_refused_even_under_a_right_checksum(
    stored: Callable[[bytes], Path],
) -> None:
    changed = bytearray(STORED[:192])
    changed[10] = 1
    assert fault_of(stored(with_header_checksum(bytes(changed)) + PAYLOAD)) == "version"


def test_a_payload_of_another_size_than_the_slot_s_is_refused(tmp_path: Path) -> None:
    small = BlockHeader(HEADER.identity, CONTENT, 10, checksum_of(PAYLOAD[:10]))
    path = tmp_path / "block.kv"
    path.write_bytes(encode_header(small) + PAYLOAD[:10])
    assert fault_of(path) == "header"


@pytest.mark.parametrize("tokens", [0, (1 << 16) + 1, 0xFFFFFFFF])
def test_an_absurd_number_of_tokens_is_refused_before_anything_is_read_for_it(
    tokens: int, stored: Callable[[bytes], Path]
) -> None:
    changed = bytearray(STORED)
    struct.pack_into("<I", changed, 76, tokens)
    assert fault_of(stored(bytes(changed))) == "header"


def test_what_is_no_file_is_refused_and_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    folder, link, pipe, loop = (tmp_path / name for name in ("folder", "link", "pipe", "loop"))
    folder.mkdir()
    (tmp_path / "real").write_bytes(STORED)
    link.symlink_to(tmp_path / "real")
    loop.symlink_to(loop)
    os.mkfifo(pipe)
    assert [fault_of(path) for path in (folder, link, pipe, loop)] == ["kind"] * 4


def test_a_file_that_is_missing_is_no_fault_of_a_block(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "no.kv", tmp_path / "file" / "no.kv"):
        with pytest.raises(FileNotFoundError):
            read(path)
