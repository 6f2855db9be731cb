"""The disk folder with real faults: what others put into it, what dies while it writes, what the system refuses."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from slots import PAYLOAD_BYTES, payload_of
from stored_blocks import CHAIN, IDENTITY, KIND, header_of, temporaries, write

from paddock.cache.folder import CacheFolder, read_block, remove_leftovers, scan
from paddock.errors import BlockRefused, CacheFolderUnusable


def read(folder: CacheFolder, key: bytes) -> bytes:
    payload = bytearray(PAYLOAD_BYTES)
    folder.read(IDENTITY, key, memoryview(payload))
    return bytes(payload)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[CacheFolder]:
    folder = CacheFolder.open(tmp_path / "cache")
    yield folder
    folder.close()


def test_a_block_that_was_written_is_read_and_found_by_a_scan(folder: CacheFolder) -> None:
    key = write(folder)
    assert read(folder, key) == payload_of(key)
    (found,) = [file for part in scan(folder.path) for file in part]
    assert (found.identity, found.key, found.file_bytes) == (IDENTITY, key, folder.size_of(IDENTITY, key))
    assert temporaries(folder.path) == []


def test_nobody_else_may_read_what_is_stored(folder: CacheFolder) -> None:
    path = folder.path_of(IDENTITY, write(folder))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for above in (path.parent, path.parent.parent, folder.path / "blocks", folder.path / "temporary", folder.path):
        assert stat.S_IMODE(above.stat().st_mode) == 0o700


def test_a_block_that_is_there_is_not_written_again_but_counts_as_used(folder: CacheFolder) -> None:
    path = folder.path_of(IDENTITY, write(folder))
    os.utime(path, (1, 1))
    inode = path.stat().st_ino
    write(folder)
    assert path.stat().st_ino == inode
    assert path.stat().st_mtime > 1


def test_a_payload_that_was_scribbled_over_is_never_written(folder: CacheFolder) -> None:
    content = CHAIN.content(0)
    with pytest.raises(BlockRefused, match="memory"):
        folder.write(header_of(content), memoryview(bytes(PAYLOAD_BYTES)))
    assert list(scan(folder.path)) == []


def test_a_scan_passes_over_what_is_no_block(folder: CacheFolder) -> None:
    path = folder.path_of(IDENTITY, write(folder))
    (path.parent / "notes.txt").write_text("x")
    (path.parent / ("0" * 40 + ".kv")).mkdir()
    (path.parent.parent / "zz").write_text("x")
    (folder.path / "blocks" / "stray").mkdir()
    (folder.path / "blocks" / ("a" * 40)).write_text("x")
    path.with_name("f" * 40 + ".kv").symlink_to(path)
    assert [file.key for part in scan(folder.path) for file in part] == [CHAIN.content(0).key]


@pytest.mark.parametrize("place", ["folder", "full folder", "link", "short file"])
def test_something_else_in_a_block_s_place_is_replaced_by_the_next_save(folder: CacheFolder, place: str) -> None:
    path = folder.path_of(IDENTITY, CHAIN.content(0).key)
    path.parent.mkdir(parents=True)
    if place == "link":
        path.symlink_to(folder.path / "nowhere")
    elif place == "short file":
        path.write_bytes(b"x")
    else:
        path.mkdir()
        if place == "full folder":
            (path / "inside").write_text("x")
    key = write(folder)
    assert read(folder, key) == payload_of(key)


@pytest.mark.parametrize("above", [1, 2])
def test_a_file_where_a_folder_should_be_is_replaced_by_the_next_save(folder: CacheFolder, above: int) -> None:
    path = folder.path_of(IDENTITY, CHAIN.content(0).key)
    place = path.parents[above - 1]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("x")
    with pytest.raises(FileNotFoundError):
        read(folder, CHAIN.content(0).key)
    assert folder.size_of(IDENTITY, CHAIN.content(0).key) is None
    key = write(folder)
    assert read(folder, key) == payload_of(key)


def test_removing_takes_whatever_has_the_block_s_name(folder: CacheFolder) -> None:
    key = write(folder)
    folder.remove(IDENTITY, key)
    folder.remove(IDENTITY, key)
    folder.path_of(IDENTITY, key).mkdir()
    folder.remove(IDENTITY, key)
    assert folder.size_of(IDENTITY, key) is None


def test_a_folder_that_was_deleted_is_noticed_and_not_made_again_by_a_write(folder: CacheFolder) -> None:
    key = write(folder)
    subprocess.run(["rm", "-r", folder.path], check=True)
    with pytest.raises(FileNotFoundError):
        write(folder, 1)
    with pytest.raises(FileNotFoundError):
        read(folder, key)
    assert not folder.path.exists()
    again = CacheFolder.open(folder.path)
    assert read(again, write(again)) == payload_of(key)
    again.close()


def test_a_folder_whose_blocks_were_deleted_is_noticed_too(folder: CacheFolder) -> None:
    write(folder)
    subprocess.run(["rm", "-r", folder.path / "blocks"], check=True)
    with pytest.raises(FileNotFoundError):
        write(folder, 1)
    assert temporaries(folder.path) == []


@pytest.mark.parametrize("place", ["", "blocks", "temporary"])
def test_a_file_where_the_folder_should_be_is_a_typed_error(tmp_path: Path, place: str) -> None:
    path = tmp_path / "cache"
    if place:
        path.mkdir()
    (path / place).write_text("x")
    if place == "temporary":  # what is there can still be read
        assert not CacheFolder.open(path).writable
        return
    with pytest.raises(CacheFolderUnusable) as unusable:
        CacheFolder.open(path)
    assert unusable.value.path == str(path)


def limited_writer(path: Path, limit: int) -> subprocess.CompletedProcess[str]:
    """A process whose files cannot grow beyond ``limit`` bytes, as on a disk that is full, writes a block."""
    script = """
import errno, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from stored_blocks import CacheFolder, temporaries, write
folder = CacheFolder.open(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    write(folder)
except OSError as error:
    print(errno.errorcode[error.errno], temporaries(folder.path))
else:
    print("written")
"""
    command = [sys.executable, "-c", script, path, str(limit), str(Path(__file__).parent)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)


@pytest.mark.parametrize("limit", [0, 100, 4000])
def test_a_file_that_cannot_grow_leaves_nothing_behind(tmp_path: Path, limit: int) -> None:
    path = tmp_path / "cache"
    assert limited_writer(path, limit).stdout.split() == [errno.errorcode[errno.EFBIG], "[]"]
    assert list(scan(path)) in ([], [[]])


def test_a_disk_that_is_full_leaves_nothing_behind(folder: CacheFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """``/dev/full`` is a device that is full: the temporary file leads there."""
    real = os.open

    def opened(path: object, flags: int, mode: int = 0o777) -> int:
        if str(path).endswith(".tmp"):
            os.close(real(path, flags, mode))  # type: ignore[arg-type]
            return real("/dev/full", os.O_WRONLY)
        return real(path, flags, mode)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", opened)
        with pytest.raises(OSError, match="No space left"):
            write(folder)
    assert temporaries(folder.path) == []
    assert list(scan(folder.path)) == []
    write(folder)


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from stored_blocks import CacheFolder, write
folder = CacheFolder.open(Path(sys.argv[1]))
print("open", flush=True)
for number in range(int(sys.argv[3]), int(sys.argv[4])):
    print(write(folder, number).hex(), flush=True)
print("done", flush=True)
sys.stdin.read()
"""


def writer(path: Path, first: int, last: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), str(Path(__file__).parent), str(first), str(last)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def whole_blocks(path: Path) -> set[str]:
    """Verifies every block that has a name; their keys."""
    keys = set()
    for part in scan(path):
        for file in part:
            name = file.key.hex()
            read_block(path / "blocks" / IDENTITY / name[:2] / f"{name}.kv", IDENTITY, file.key, None)
            keys.add(name)
    return keys


def test_blocks_of_a_process_that_is_killed_are_whole_and_no_temporary_file_outlives_the_next_start(
    tmp_path: Path,
) -> None:
    path = tmp_path / "cache"
    reported: set[str] = set()
    for round_ in range(5):
        process = writer(path, 40 * round_, 200)
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        for _ in range(5 + 7 * round_):
            reported.add(process.stdout.readline().strip())
        time.sleep(0.0007 * round_)
        process.send_signal(signal.SIGKILL)
        output, _ = process.communicate()
        reported |= set(output.split()) - {"done"}
        assert reported <= whole_blocks(path)
    CacheFolder.open(path).close()
    assert os.listdir(path / "temporary") == []
    assert reported <= whole_blocks(path)


def test_a_temporary_file_of_a_dead_writer_is_removed_and_that_of_a_live_one_is_left(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    alive, dead = writer(path, 0, 1), writer(path, 0, 1)
    for process in (alive, dead):
        assert process.stdout is not None
        while process.stdout.readline() != "done\n":
            pass
    names = sorted(os.listdir(path / "temporary"))
    assert len(names) == 2
    for name in names:
        (path / "temporary" / name.replace(".lock", "-77.tmp")).write_bytes(b"half")
    dead.kill()
    dead.communicate()
    assert remove_leftovers(path) == 1
    (left,) = temporaries(path)
    assert (path / "temporary" / left.replace("-77.tmp", ".lock")).exists()
    alive.communicate("")
    remove_leftovers(path)
    assert temporaries(path) == []


def test_processes_that_write_the_same_and_other_blocks_at_once_lose_and_tear_none(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    processes = [writer(path, first, last) for first, last in ((0, 60), (0, 60), (30, 100))]
    for process in processes:
        output, _ = process.communicate("")
        assert output.endswith("done\n")
    assert whole_blocks(path) == {CHAIN.content(number).key.hex() for number in range(100)}
    assert temporaries(path) == []


def test_what_an_identity_is_made_of_is_written_down_once(folder: CacheFolder) -> None:
    folder.describe(KIND)
    path = folder.path / "blocks" / IDENTITY / "identity.json"
    assert '"model": "model"' in path.read_text()
    inode = path.stat().st_ino
    folder.describe(KIND)
    assert path.stat().st_ino == inode
