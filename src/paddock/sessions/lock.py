"""One writer per session, also among processes: an advisory lock on a file for each session.

A lock is held for one turn. It goes with the process that holds it, however that ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path
from typing import Final

from paddock.errors import SessionStoreUnusable
from paddock.sessions.turns import SessionKey

__all__ = ["SessionLock"]

_MODE: Final = 0o600


class SessionLock:
    """``folder`` is made where it is not there (any more). The file's name tells nothing of tenant and id.

    The file holds the holder's pid.
    """

    def __init__(self, folder: Path, key: SessionKey) -> None:
        name = hashlib.blake2b(f"{key.tenant}\0{key.id}".encode(), digest_size=20, person=b"paddock-session")
        self._path = folder / f"{name.hexdigest()}.lock"
        self._file: int | None = None
        self.holder: int | None = None
        """Who had it when :meth:`acquire` found it taken, where that could be told."""

    def acquire(self) -> bool:
        """Takes the lock if it is free. Blocking, but not for others. Raises SessionStoreUnusable."""
        try:
            return self._acquire()
        except OSError as error:
            raise SessionStoreUnusable(self._path, error.strerror or str(error)) from error

    def _acquire(self) -> bool:
        assert self._file is None
        while True:
            file = self._opened()
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                written = os.pread(file, 20, 0)
                self.holder = int(written) if written.isdigit() else None
                os.close(file)
                return False
            except BaseException:
                os.close(file)
                raise
            if self._is_at_its_path(file):
                break
            os.close(file)  # its last holder removed it: somebody else may have a lock on a new one
        self._file = file
        try:
            os.ftruncate(file, 0)
            os.pwrite(file, str(os.getpid()).encode(), 0)
        except OSError:
            pass  # a full disk: the lock holds all the same, only its holder is not known
        return True

    def _opened(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(self._path, flags, _MODE)
        except FileNotFoundError:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(self._path, flags, _MODE)

    def _is_at_its_path(self, file: int) -> bool:
        try:
            found = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        ours = os.fstat(file)
        return (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)

    def release(self) -> None:
        """Lets go of the lock and removes its file. Idempotent."""
        file, self._file = self._file, None
        if file is not None:
            try:
                os.unlink(self._path)
            except OSError:
                pass  # it stays, and does no harm
            os.close(file)
