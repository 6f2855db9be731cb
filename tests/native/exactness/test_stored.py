"""Certificates on disk: read again for what they were made for, and for nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import pytest
from structlog.testing import capture_logs

from paddock.native.exactness.certificate import Certificate, CheckResult
from paddock.native.exactness.stored import certificate_path, read_certificate, write_certificate

MADE = Certificate(
    recipe="invariant",
    checks=(CheckResult("chunks", "passed", 296), CheckResult("threads", "failed", 9, "other logits")),
    weights={"f16": 3},
    parameters={"n_threads": "4"},
    build="b",
    model="m",
    thread_counts=(4,),
    seconds=1.25,
)


def test_what_is_written_is_read_again_and_says_that_it_was_stored(tmp_path: Path) -> None:
    path = certificate_path(tmp_path / "new" / "folder", "a")
    assert read_certificate(path) is None
    write_certificate(path, MADE)
    assert read_certificate(path) == attrs.evolve(MADE, stored=True)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_each_thing_that_it_was_made_for_has_a_file_of_its_own(tmp_path: Path) -> None:
    made_for = [("canonical", "build", "model", {"a": "1", "b": "2"}, 10.0)]
    made_for += [("invariant", *made_for[0][1:]), ("canonical", "other", *made_for[0][2:])]
    made_for += [("canonical", "build", "model", {"a": "1", "b": "3"}, 10.0)]
    assert len({certificate_path(tmp_path, *values) for values in made_for}) == 4
    reordered = ("canonical", "build", "model", {"b": "2", "a": "1"}, 10.0)
    assert certificate_path(tmp_path, *reordered) == certificate_path(tmp_path, *made_for[0])


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"recipe": 3}', b"\xff" * 100, b" " * (2 << 20)])
def test_a_file_that_holds_none_is_no_certificate(tmp_path: Path, content: bytes) -> None:
    path = certificate_path(tmp_path, "a")
    path.write_bytes(content)
    with capture_logs():
        assert read_certificate(path) is None
        write_certificate(path, MADE)
    assert read_certificate(path) == attrs.evolve(MADE, stored=True)


def test_a_folder_in_its_place_is_told_and_harms_nobody(tmp_path: Path) -> None:
    path = certificate_path(tmp_path, "a")
    path.mkdir()
    with capture_logs() as logs:
        assert read_certificate(path) is None
        write_certificate(path, MADE)
    assert [log["log_level"] for log in logs] == ["warning", "warning"]
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_place_that_cannot_be_a_folder_is_told_and_harms_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with capture_logs() as logs:
        write_certificate(certificate_path(tmp_path / "file", "a"), MADE)
    assert [log["log_level"] for log in logs] == ["warning"]


def test_no_single_byte_of_it_can_be_changed_nor_its_name(tmp_path: Path) -> None:
    path = certificate_path(tmp_path, "a")
    write_certificate(path, MADE)
    content = path.read_bytes()
    other = certificate_path(tmp_path, "b")
    other.write_bytes(content)
    with capture_logs():
        assert read_certificate(other) is None
        for at in range(len(content)):
            for flipped in (1, 128):
                path.write_bytes(content[:at] + bytes([content[at] ^ flipped]) + content[at + 1 :])
                assert read_certificate(path) is None
        assert read_certificate(path) is None


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_has_no_end_is_not_read(kind: str, tmp_path: Path) -> None:
    path = certificate_path(tmp_path, "a")
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with capture_logs():
        assert read_certificate(path) is None
        write_certificate(path, MADE)
    assert read_certificate(path) == attrs.evolve(MADE, stored=True)
