"""The folder of the disk tier: its layout, and what is done to the files in it. Blocking; called from threads.

    blocks/<identity>/<first two hex digits of the key>/<key>.kv     one block each
    blocks/<identity>/identity.json                                 what the identity was made of
    temporary/<writer>.lock, <writer>-<number>.tmp                   files that are being written
    gc.lock                                                         held by whoever cleans up

Several processes may use one folder. A file has its whole content when it gets its name, and its name says what the
content is, so readers and writers need no lock. A writer holds a lock on its own ``.lock`` file for as long as it
lives: temporary files of writers whose lock can be taken are left over from a crash.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from paddock.cache.block_file import BlockHeader, checksum_of, encode_header, file_bytes, read_header, read_payload
from paddock.cache.keys import HASH_BYTES, Identity
from paddock.errors import BlockRefused, CacheFolderUnusable

__all__ = ["CacheFolder", "ScannedFile", "discard", "exclusive", "read_block", "remove_leftovers", "scan"]

_SUFFIX = ".kv"
_FOLDER_MODE = 0o700
_FILE_MODE = 0o600
_CLOCKS_DIFFER_NS = 60 * 10**9
"""So far ahead may be the clock of another machine that shares the folder."""
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Not through a link, and without waiting where somebody put a pipe."""


@attrs.frozen
class ScannedFile:
    """A block's file as its folder's listing shows it; nothing of it has been read."""

    identity: str
    key: bytes
    file_bytes: int
    used_ns: int
    """Time of its last use, nanoseconds of the system's clock; 0 where the file shows one that is yet to come."""


class CacheFolder:
    """One process's way to a cache folder. :meth:`open` it; :meth:`close` gives the writer's lock back."""

    def __init__(self, path: Path, lock: int | None, writer: str, refusal: str | None) -> None:
        self.path = path
        self.refusal = refusal
        """Why nothing can be written, or None."""
        self._lock = lock
        self._writer = writer
        self._number = 0

    @classmethod
    def open(cls, path: Path) -> CacheFolder:
        """Makes the folder where it is missing, removes what dead writers left, and becomes a writer.

        A folder that can be read but not written to is opened all the same, with ``refusal`` set. Blocking. Raises
        CacheFolderUnusable.
        """
        try:
            path.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            for name in ("blocks", "temporary"):
                (path / name).mkdir(mode=_FOLDER_MODE, exist_ok=True)
            lock, writer = _become_writer(path / "temporary")
        except OSError as error:
            problem = error.strerror or str(error)
            try:
                os.scandir(path / "blocks").close()
            except OSError:
                raise CacheFolderUnusable(path, problem) from error
            return cls(path, None, "", problem)
        folder = cls(path, lock, writer, None)
        try:
            remove_leftovers(path)
        except OSError:
            pass  # left for the next start
        return folder

    @property
    def writable(self) -> bool:
        """Whether blocks can be written."""
        return self._lock is not None

    def path_of(self, identity: str, key: bytes) -> Path:
        """Where a block's file lies."""
        name = key.hex()
        return self.path / "blocks" / identity / name[:2] / (name + _SUFFIX)

    def write(self, header: BlockHeader, payload: memoryview) -> int:
        """Publishes a block; returns the bytes of its file. One that is there already is left as it is.

        The payload is copied and its checksum compared first, so that what a dying worker scribbled over is never
        written. Afterwards the block is there, whole, whatever happens to process or machine. Blocking. Raises
        BlockRefused for a payload that is not what the header says, and OSError, with nothing left behind.
        """
        final = self.path_of(header.identity.hex(), header.content.key)
        size = file_bytes(len(header.content.classes), header.payload_bytes)
        try:
            known = os.stat(final, follow_symlinks=False)
            if stat.S_ISREG(known.st_mode) and known.st_size == size:
                os.utime(final, follow_symlinks=False)
                return size
        except (FileNotFoundError, NotADirectoryError):
            pass
        content = bytes(payload)
        if len(content) != header.payload_bytes or checksum_of(content) != header.checksum:
            raise BlockRefused("payload", "the payload in memory is not what was saved")
        self._publish(final, (encode_header(header), content))
        return size

    def describe(self, identity: Identity) -> None:
        """Writes down what an identity was made of, for people. Blocking. Raises OSError."""
        final = self.path / "blocks" / identity.digest().hex() / "identity.json"
        if not final.exists():
            text = json.dumps(attrs.asdict(identity), indent=2) + "\n"
            self._publish(final, (text.encode(),))

    def _publish(self, final: Path, parts: tuple[bytes, ...]) -> None:
        if self._lock is None:
            raise OSError(self.refusal)
        self._number += 1
        temporary = self.path / "temporary" / f"{self._writer}-{self._number}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, _FILE_MODE)
        try:
            try:
                for part in parts:
                    _write_all(descriptor, part)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            self._make_folder(final.parent)
            try:
                os.rename(temporary, final)
            except (IsADirectoryError, NotADirectoryError, FileNotFoundError):
                discard(final)  # something that is no file has the block's name
                self._make_folder(final.parent)  # a clean-up removed it while it was empty
                os.rename(temporary, final)
        except BaseException:
            try:
                os.unlink(temporary)
            except OSError:
                pass
            raise
        _sync_folder(final.parent)

    def _make_folder(self, folder: Path) -> None:
        """Makes a folder below ``blocks``, lasting; ``blocks`` itself is never made again, so that a cache folder that
        was deleted is noticed."""
        if folder.is_dir() and not folder.is_symlink():
            return
        if folder.parent != self.path / "blocks":
            self._make_folder(folder.parent)
        try:
            os.mkdir(folder, _FOLDER_MODE)
        except FileExistsError:
            if folder.is_dir() and not folder.is_symlink():
                return  # another process was faster
            discard(folder)
            os.mkdir(folder, _FOLDER_MODE)
        _sync_folder(folder.parent)

    def size_of(self, identity: str, key: bytes) -> int | None:
        """Bytes of a block's file; None where there is none. Blocking. Raises OSError for other reasons."""
        try:
            found = os.stat(self.path_of(identity, key), follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def read(self, identity: str, key: bytes, into: memoryview) -> BlockHeader:
        """Reads a block's payload into ``into``, which is as long as the payload must be, and verifies everything.

        ``into`` holds nonsense after a failure. Blocking. Raises FileNotFoundError, BlockRefused, and other OSErrors.
        """
        return read_block(self.path_of(identity, key), identity, key, into)

    def remove(self, identity: str, key: bytes) -> None:
        """Removes a block, and whatever else has its name. Blocking. Raises OSError."""
        discard(self.path_of(identity, key))

    def touch(self, identity: str, key: bytes) -> None:
        """Sets the time of a block's last use to now; one that is gone is none of our business. Blocking."""
        try:
            os.utime(self.path_of(identity, key), follow_symlinks=False)
        except OSError:
            pass  # a wrong order of eviction is all that follows

    def close(self) -> None:
        """Gives the writer's lock back. Idempotent."""
        if self._lock is not None:
            lock, self._lock = self._lock, None
            try:
                os.unlink(self.path / "temporary" / f"{self._writer}.lock")
            except OSError:
                pass
            os.close(lock)


def read_block(path: Path, identity: str, key: bytes, into: memoryview | None) -> BlockHeader:
    """Reads and verifies one block file; with ``into=None`` its payload goes into memory of its own.

    Blocking. Raises FileNotFoundError, BlockRefused, and other OSErrors.
    """
    try:
        descriptor = os.open(path, _READ_FLAGS)
    except NotADirectoryError as error:
        raise FileNotFoundError(*error.args) from error
    except OSError as error:
        if stat.S_ISLNK(os.lstat(path).st_mode):
            raise BlockRefused("kind", "a link has the block's name") from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BlockRefused("kind", "something that is no file has the block's name")
        header = read_header(descriptor)
        if header.identity.hex() != identity:
            raise BlockRefused("identity", "the block belongs to another model, build or context shape")
        if header.content.key != key:
            raise BlockRefused("key", "the block has another key than its file's name says")
        if into is None:
            into = memoryview(bytearray(header.payload_bytes))
        elif header.payload_bytes != len(into):
            raise BlockRefused("header", f"a payload of {header.payload_bytes} bytes, where {len(into)} are due")
        read_payload(descriptor, header, into)
        return header
    finally:
        os.close(descriptor)


def scan(path: Path) -> Iterator[list[ScannedFile]]:
    """The block files of a cache folder, one subfolder after another; nothing is opened, what is none is passed over.

    Blocking. Raises OSError where the folder itself cannot be listed.
    """
    with os.scandir(path / "blocks") as identities:
        names = sorted(entry.name for entry in identities if _is_hex(entry.name, 2 * HASH_BYTES))
    for identity in names:
        try:
            with os.scandir(path / "blocks" / identity) as entries:
                folders = sorted(entry.name for entry in entries if _is_hex(entry.name, 2))
        except OSError:
            continue
        for folder in folders:
            try:
                yield list(_files_in(path / "blocks" / identity / folder, identity))
            except OSError:
                continue  # gone meanwhile, or no folder


def _files_in(folder: Path, identity: str) -> Iterator[ScannedFile]:
    # A time that lies ahead is that of a wrong clock. Taken for the last use, it would keep its file for ever.
    latest = time.time_ns() + _CLOCKS_DIFFER_NS
    with os.scandir(folder) as entries:
        for entry in entries:
            name, suffix = entry.name[: 2 * HASH_BYTES], entry.name[2 * HASH_BYTES :]
            if suffix != _SUFFIX or not _is_hex(name, 2 * HASH_BYTES) or name[:2] != folder.name:
                continue
            try:
                known = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if stat.S_ISREG(known.st_mode):
                used_ns = known.st_mtime_ns if known.st_mtime_ns <= latest else 0
                yield ScannedFile(identity, bytes.fromhex(name), known.st_size, used_ns)


def _is_hex(text: str, length: int) -> bool:
    return len(text) == length and not text.strip("0123456789abcdef")


def remove_leftovers(path: Path) -> int:
    """Removes the temporary files of writers that are dead; returns how many. Blocking. Raises OSError."""
    folder = path / "temporary"
    removed = 0
    files: dict[str, list[str]] = {}
    for name in os.listdir(folder):
        files.setdefault(name.partition(".")[0].partition("-")[0], []).append(name)
    for writer, names in files.items():
        try:
            lock: int | None = os.open(folder / f"{writer}.lock", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            lock = None  # a writer makes its lock before, and removes it after, all other files
        try:
            if lock is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for name in sorted(names, key=lambda name: name.endswith(".lock")):  # the lock last
                discard(folder / name)
                removed += name.endswith(".tmp")
        except BlockingIOError:
            pass  # it lives
        finally:
            if lock is not None:
                os.close(lock)
    return removed


def _become_writer(folder: Path) -> tuple[int, str]:
    """Makes a lock file of our own and locks it. Raises OSError."""
    while True:
        writer = secrets.token_hex(8)
        path = folder / f"{writer}.lock"
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.exists(path):
                return lock, writer
        except BlockingIOError:
            pass  # somebody who cleans up took it for a dead writer's before it was locked, and removes it
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds ``gc.lock``; waits for whoever has it. Blocking. Raises OSError."""
    lock = os.open(path / "gc.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _FILE_MODE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def discard(path: Path) -> None:
    """Removes a file, or a folder that has a file's place; nothing there is as good. Blocking. Raises OSError."""
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (IsADirectoryError, PermissionError):
        if not os.path.isdir(path) or os.path.islink(path):
            raise
        shutil.rmtree(path)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
