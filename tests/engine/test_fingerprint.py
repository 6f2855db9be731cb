"""A model file's fingerprint follows its content."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from paddock.engine.caching.fingerprint import PIECE_BYTES, STRIDE_BYTES, fingerprint_of


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_equal_content_has_one_fingerprint_wherever_it_lies(tmp_path: Path):
    one, two = write(tmp_path / "one", b"abc" * 1000), write(tmp_path / "two", b"abc" * 1000)
    assert fingerprint_of(one) == fingerprint_of(two) == fingerprint_of(one)


@pytest.mark.parametrize("at", [0, 1500, 2999])
def test_any_byte_of_a_file_that_is_hashed_whole_counts(tmp_path: Path, at: int):
    data = bytearray(b"abc" * 1000)
    before = fingerprint_of(write(tmp_path / "one", data))
    data[at] ^= 1
    assert fingerprint_of(write(tmp_path / "two", data)) != before


@pytest.mark.parametrize("at", [0, 16 * PIECE_BYTES - 1, 2 * STRIDE_BYTES + 5, 4 * STRIDE_BYTES - 1])
def test_a_sampled_file_is_seen_at_its_beginning_at_equal_distances_and_at_its_end(tmp_path: Path, at: int):
    data = bytearray(os.urandom(4 * STRIDE_BYTES))
    before = fingerprint_of(write(tmp_path / "one", data), whole_bytes=1000)
    data[at] ^= 1
    assert fingerprint_of(write(tmp_path / "two", data), whole_bytes=1000) != before
    assert fingerprint_of(write(tmp_path / "three", data[:-1]), whole_bytes=1000) != before


def test_a_file_that_was_written_anew_is_hashed_anew(tmp_path: Path):
    path = tmp_path / "one"
    before = fingerprint_of(write(path, b"first"))
    write(path, b"other")
    assert fingerprint_of(path) != before
