"""``paddock cache`` on real folders."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from slots import BLOCK_TOKENS, PAYLOAD_BYTES, chain_of, identity, payload_of

from paddock.cache.block_file import BlockHeader, checksum_of, file_bytes
from paddock.cache.folder import CacheFolder
from paddock.cli import main

FILE_BYTES = file_bytes(BLOCK_TOKENS, PAYLOAD_BYTES)


def cache(folder: Path, *arguments: str) -> Result:
    command, *options = arguments
    return CliRunner().invoke(main, ["cache", command, "--cache-dir", str(folder), *options])


def json_of(folder: Path, *arguments: str) -> Any:
    result = cache(folder, *arguments, "--json")
    assert result.stdout.count("\n") == 1
    return json.loads(result.stdout)


def fill(path: Path, model: str, blocks: int, *, days_ago: float = 0.0) -> list[Path]:
    """Stores blocks, block n last used n seconds later than the one before it."""
    kind = identity(model)
    chain = chain_of(list(range(4 * blocks)), kind)
    folder = CacheFolder.open(path)
    folder.describe(kind)
    files = []
    for number in range(blocks):
        content = chain.content(number)
        payload = payload_of(content.key)
        folder.write(
            BlockHeader(kind.digest(), content, PAYLOAD_BYTES, checksum_of(payload)),
            memoryview(payload),
        )
        files.append(folder.path_of(kind.digest().hex(), content.key))
        used = time.time() - 86_400 * days_ago + number - blocks
        os.utime(files[-1], (used, used))
    folder.close()
    return files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_ls_lists_identities_the_last_used_first(folder: Path) -> None:
    fill(folder, "old model", 3, days_ago=2)
    fill(folder, "new model", 2)
    listed = json_of(folder, "ls")["identities"]
    assert [(entry["model"], entry["blocks"], entry["file_bytes"]) for entry in listed] == [
        ("new model", 2, 2 * FILE_BYTES),
        ("old model", 3, 3 * FILE_BYTES),
    ]
    assert listed[0]["identity"] == identity("new model").digest().hex()
    assert listed[0]["block_tokens"] == BLOCK_TOKENS
    lines = cache(folder, "ls").stdout.splitlines()
    assert len(lines) == 2
    assert "new model" in lines[0]
    assert identity("new model").digest().hex()[:12] in lines[0]


def test_ls_lists_blocks_also_where_their_description_is_missing_or_nonsense(folder: Path) -> None:
    for model, text in (("a", None), ("b", "[1]"), ("c", "{")):
        path = fill(folder, model, 1)[0].parents[1] / "identity.json"
        path.unlink()
        if text is not None:
            path.write_text(text)
    assert [entry["model"] for entry in json_of(folder, "ls")["identities"]] == ["", "", ""]
    assert cache(folder, "ls").stdout.count("(not described)") == 3


def test_stat_gives_the_sums(folder: Path) -> None:
    fill(folder, "one", 3)
    fill(folder, "other", 2)
    sums = json_of(folder, "stat")
    assert (sums["blocks"], sums["file_bytes"], sums["identities"]) == (5, 5 * FILE_BYTES, 2)
    assert (sums["path"], sums["temporary_files"]) == (str(folder), 0)
    assert sums["first_used"] < sums["last_used"] <= time.time()
    assert f"({5 * FILE_BYTES} bytes)" in cache(folder, "stat").stdout


def test_an_empty_folder_is_no_error(folder: Path) -> None:
    CacheFolder.open(folder).close()
    assert json_of(folder, "ls") == {"identities": []}
    assert json_of(folder, "stat")["last_used"] is None
    assert "never" in cache(folder, "stat").stdout
    assert json_of(folder, "verify")["checked"] == 0
    assert cache(folder, "gc").exit_code == 0


def test_verify_names_each_bad_block_and_fails(folder: Path) -> None:
    files = fill(folder, "model", 4)
    assert cache(folder, "verify").exit_code == 0
    content = bytearray(files[1].read_bytes())
    content[-1] ^= 1
    files[1].write_bytes(content)
    os.truncate(files[2], 10)
    result = cache(folder, "verify")
    assert result.exit_code == 1
    assert f"{files[1]}: payload: " in result.stdout
    assert f"{files[2]}: truncated: " in result.stdout
    found = json_of(folder, "verify")
    assert (found["checked"], found["removed"]) == (4, 0)
    assert {(bad["path"], bad["fault"]) for bad in found["bad"]} == {
        (str(files[1]), "payload"),
        (str(files[2]), "truncated"),
    }
    assert cache(folder, "verify", "--remove").exit_code == 0
    assert [path.exists() for path in files] == [True, False, False, True]
    assert cache(folder, "verify").exit_code == 0


def test_verify_finds_a_block_of_one_model_among_those_of_another(folder: Path) -> None:
    (mine,), (other,) = fill(folder, "mine", 1), fill(folder, "other", 1)
    mine.write_bytes(other.read_bytes())
    assert [bad["fault"] for bad in json_of(folder, "verify")["bad"]] == ["identity"]


def test_gc_alone_removes_what_dead_writers_left_and_no_block(folder: Path) -> None:
    fill(folder, "model", 2)
    (folder / "temporary" / "0123-1.tmp").write_bytes(b"half")
    alive = CacheFolder.open(folder)
    (folder / "temporary" / "4567-1.tmp").write_bytes(b"half")
    assert json_of(folder, "gc")["removed_temporary_files"] == 1
    alive.close()
    assert json_of(folder, "stat")["blocks"] == 2


def test_gc_down_to_a_size_removes_what_was_unused_for_longest(folder: Path) -> None:
    files = fill(folder, "model", 5)
    would = json_of(folder, "gc", "--max-bytes", str(2 * FILE_BYTES), "--dry-run")
    assert (would["removed_blocks"], would["left_bytes"], would["dry_run"]) == (3, 2 * FILE_BYTES, True)
    assert all(path.exists() for path in files)
    done = json_of(folder, "gc", "--max-bytes", str(2 * FILE_BYTES))
    assert (done["removed_blocks"], done["removed_bytes"], done["failed"]) == (3, 3 * FILE_BYTES, 0)
    assert [path.exists() for path in files] == [False, False, False, True, True]


def test_gc_removes_what_was_unused_for_days_and_the_folders_that_get_empty(folder: Path) -> None:
    old, new = fill(folder, "old", 2, days_ago=10), fill(folder, "new", 2)
    assert json_of(folder, "gc", "--unused-days", "9.5")["removed_blocks"] == 2
    assert not old[0].parents[1].exists()
    assert all(path.exists() for path in new)


def test_gc_removes_the_blocks_of_one_identity(folder: Path) -> None:
    fill(folder, "one", 2)
    fill(folder, "other", 3)
    digest = identity("one").digest().hex()
    assert json_of(folder, "gc", "--identity", digest[:8])["removed_blocks"] == 2
    assert [entry["model"] for entry in json_of(folder, "ls")["identities"]] == ["other"]


def test_a_writer_goes_on_after_gc_removed_its_empty_folders(folder: Path) -> None:
    fill(folder, "model", 1)
    writer = CacheFolder.open(folder)
    assert cache(folder, "gc", "--max-bytes", "0").exit_code == 0
    assert os.listdir(folder / "blocks") == []
    writer.close()
    fill(folder, "model", 1)
    assert json_of(folder, "verify")["checked"] == 1


@pytest.mark.parametrize(
    ("size", "expected"), [("0", 5), ("1K", 5), ("10K", 3), ("0.01M", 3), ("20KiB", 1), ("1g", 0), ("99", 5)]
)
def test_sizes_have_units(folder: Path, size: str, expected: int) -> None:
    fill(folder, "model", 5)
    assert json_of(folder, "gc", "--max-bytes", size, "-n")["removed_blocks"] == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ("gc", "--max-bytes", "x"), ("gc", "--max-bytes", "-1"), ("gc", "--max-bytes", "inf"),
        ("gc", "--max-bytes", ""), ("gc", "--unused-days", "-1"), ("gc", "--identity", "xyz1"),
        ("gc", "--identity", "ab"), ("verify", "--what"), ("nothing",),
    ],
)  # fmt: skip
def test_wrong_usage_ends_with_2(folder: Path, arguments: tuple[str, ...]) -> None:
    result = cache(folder, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")


@pytest.mark.parametrize("command", ["ls", "stat", "verify", "gc"])
def test_a_folder_that_is_none_is_a_typed_error(folder: Path, command: str) -> None:
    result = cache(folder, command)
    assert result.exit_code == 1
    assert result.stderr.endswith("[CacheFolderUnusable]\n")
    error = json_of(folder, command)["error"]
    assert (error["type"], error["path"]) == ("CacheFolderUnusable", str(folder))
    assert not folder.exists()


@pytest.mark.parametrize("command", ["ls", "stat", "verify", "gc"])
def test_each_command_has_help_with_examples(command: str) -> None:
    result = CliRunner().invoke(main, ["cache", command, "--help"])
    assert result.exit_code == 0
    assert f"paddock cache {command}" in result.stdout
    assert "--json" in result.stdout
    assert "Examples" in result.stdout
