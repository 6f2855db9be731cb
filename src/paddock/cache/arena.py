"""Slots of one KV block each, in memory that a model's parent and its workers share.

The parent makes the file behind it (a memfd; an unlinked temporary file where there is none) and says which slot
holds what; a worker maps the same file, saves blocks right into slots and restores right from them. The file
outlives a worker and is handed to the next. It is as long as all slots together from the start, but sparse: a slot
costs memory from its ``commit`` on until it is freed.

Nobody may touch a slot that has not been committed. A page that a write has to make room for first ends the process
where there is no room (SIGBUS); ``commit`` makes the room by a system call, which fails instead.
"""

from __future__ import annotations

import errno
import heapq
import mmap
import os
import tempfile
import weakref
from pathlib import Path

import attrs

from paddock.cache.headroom import require_headroom
from paddock.errors import CacheError, CacheMemoryExhausted

__all__ = ["Arena", "ArenaMapping", "ArenaStatistics", "slot_bytes_of"]

_NAME = "paddock-kv"
_ZEROS = bytes(1 << 20)


def slot_bytes_of(payload_bytes: int) -> int:
    """The distance from slot to slot: a payload's bytes, rounded up to whole pages."""
    return -(-payload_bytes // mmap.PAGESIZE) * mmap.PAGESIZE


class _File:
    """A file descriptor that is closed once."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._finalizer = weakref.finalize(self, os.close, number)

    def close(self) -> None:
        self._finalizer()
        self.number = -1


class ArenaMapping:
    """The slots as a worker sees them: it is told where a payload lies, and allocates nothing.

    ``fd`` is duplicated. Mapped when first used, since the parent sets the file's length after the worker has said
    how long a payload is. One thread at a time, but for ``commit``.
    """

    def __init__(self, fd: int) -> None:
        self._file = _File(os.dup(fd))
        self._mapping: mmap.mmap | None = None

    def payload(self, offset: int, n_bytes: int) -> memoryview:
        """The ``n_bytes`` from ``offset`` on, writable. CacheError where they do not lie inside of the file, so that
        no access ends the process."""
        mapping = self._mapping
        if mapping is None or offset + n_bytes > len(mapping):
            mapping = self.map()
        if offset < 0 or offset % mmap.PAGESIZE or n_bytes <= 0 or offset + n_bytes > len(mapping):
            raise CacheError(f"no slot of {n_bytes} bytes begins at {offset} of {len(mapping)}")
        return memoryview(mapping)[offset : offset + n_bytes]

    def commit(self, offset: int, n_bytes: int) -> None:
        """Makes room for ``n_bytes`` from ``offset`` on, before they are filled. CacheMemoryExhausted when there is
        none. System calls of about 0.2 ms per MB; any thread."""
        require_headroom(n_bytes)
        try:
            _fallocate(self._file.number, offset, n_bytes)
        except OSError as error:
            raise CacheMemoryExhausted(n_bytes, os.strerror(error.errno or errno.EIO)) from error

    def map(self) -> mmap.mmap:
        """Maps the file as long as it is now; CacheError, CacheMemoryExhausted."""
        if self._file.number < 0:
            raise CacheError("the arena has been closed")
        length = os.fstat(self._file.number).st_size
        if self._mapping is not None and length <= len(self._mapping):
            return self._mapping
        if length == 0:
            raise CacheError("the arena has no slots yet")
        try:
            mapping = mmap.mmap(self._file.number, length)
        except (OSError, ValueError, OverflowError) as error:
            raise CacheMemoryExhausted(length, f"the arena cannot be mapped: {error}") from error
        if hasattr(mmap, "MADV_DONTDUMP"):
            mapping.madvise(mmap.MADV_DONTDUMP)
        self._unmap()
        self._mapping = mapping
        return mapping

    def remove(self, offset: int, n_bytes: int) -> None:
        """Gives the memory of whole pages back to the system; they read as zeros after."""
        if self._mapping is None:
            return
        try:
            self._mapping.madvise(mmap.MADV_REMOVE, offset, n_bytes)
        except (OSError, AttributeError):
            pass  # a file system that cannot: the slot's memory is used again with the slot

    def _unmap(self) -> None:
        mapping, self._mapping = self._mapping, None
        if mapping is not None:
            try:
                mapping.close()
            except BufferError:
                pass  # somebody still looks at a payload: unmapped when the last view is gone

    def close(self) -> None:
        """Unmaps and closes. Idempotent."""
        self._unmap()
        self._file.close()


@attrs.frozen
class ArenaStatistics:
    """``bytes_taken`` counts whole slots, whether they have been committed or not."""

    slot_bytes: int
    capacity: int
    taken: int
    bytes_taken: int
    most_taken: int


class Arena:
    """The parent's side: at most ``max_bytes`` in slots, which it allocates and frees.

    It has slots once :meth:`shape` has said how long a payload is. ``directory`` holds the temporary file where the
    system has no memfd. Bookkeeping (everything but ``commit``, ``payload``) belongs to one thread.
    """

    def __init__(self, max_bytes: int, directory: Path | None = None) -> None:
        try:
            self._file = _File(_open_file(directory))
        except OSError as error:
            raise CacheMemoryExhausted(max_bytes, f"no file for the arena: {error}") from error
        self._mapping = ArenaMapping(self._file.number)
        self._max_bytes = max_bytes
        self._payload_bytes = 0
        self._free: list[int] = []  # a heap of slot numbers below _used
        self._used = 0
        self._taken: set[int] = set()
        self._most_taken = 0

    @property
    def fd(self) -> int:
        """What a worker inherits. CacheError after :meth:`close`."""
        if self._file.number < 0:
            raise CacheError("the arena has been closed")
        return self._file.number

    @property
    def payload_bytes(self) -> int:
        """0 before :meth:`shape`."""
        return self._payload_bytes

    @property
    def slot_bytes(self) -> int:
        return slot_bytes_of(self._payload_bytes)

    @property
    def capacity(self) -> int:
        """Slots in all."""
        return self._max_bytes // self.slot_bytes if self._payload_bytes else 0

    @property
    def taken(self) -> int:
        return len(self._taken)

    @property
    def bytes_taken(self) -> int:
        return self.taken * self.slot_bytes

    def shape(self, payload_bytes: int) -> None:
        """Cuts the arena into slots for payloads of this size; again for every worker, which must agree with those
        before it as long as a slot is taken (CacheError). CacheMemoryExhausted where so much cannot be mapped."""
        if payload_bytes == self._payload_bytes:
            return
        if payload_bytes <= 0:
            raise CacheError(f"a payload cannot have {payload_bytes} bytes")
        if self._taken:
            raise CacheError(f"{self.taken} slots hold payloads of {self._payload_bytes} bytes, not {payload_bytes}")
        length = self._max_bytes // slot_bytes_of(payload_bytes) * slot_bytes_of(payload_bytes)
        try:
            if length > os.fstat(self.fd).st_size:  # never shorter: a worker may have it mapped
                os.ftruncate(self.fd, length)
        except OSError as error:
            raise CacheMemoryExhausted(length, f"the arena cannot have this length: {error}") from error
        if length:
            self._mapping.map()
        self._payload_bytes = payload_bytes
        self._free.clear()
        self._used = 0

    def allocate(self) -> int:
        """The offset of the lowest free slot, which is taken from now on. Costs no memory before ``commit``.
        CacheMemoryExhausted when all are taken."""
        if self._free:
            slot = heapq.heappop(self._free)
        elif self._used < self.capacity:
            slot = self._used
            self._used += 1
        else:
            raise CacheMemoryExhausted(self._payload_bytes, f"all {self.capacity} slots are taken")
        offset = slot * self.slot_bytes
        self._taken.add(offset)
        self._most_taken = max(self._most_taken, len(self._taken))
        return offset

    def commit(self, offset: int) -> None:
        """Makes the memory of a slot there, so that writing to it cannot fail; a worker does so itself.
        CacheMemoryExhausted when there is none. About 0.2 ms per MB; any thread."""
        self._mapping.commit(offset, self._payload_bytes)

    def payload(self, offset: int) -> memoryview:
        """The payload in a slot, writable; commit it before. Release the view before the slot is freed."""
        return self._mapping.payload(offset, self._payload_bytes)

    def write(self, offset: int, payload: memoryview) -> None:
        """Puts a payload into a slot, which it commits on the way; half the work of doing both. CacheMemoryExhausted
        when there is no room. Any thread."""
        require_headroom(len(payload))
        at = 0
        try:
            while at < len(payload):
                at += os.pwrite(self._file.number, payload[at:], offset + at)
        except OSError as error:
            raise CacheMemoryExhausted(len(payload), os.strerror(error.errno or errno.EIO)) from error

    def free(self, offset: int) -> None:
        """Takes a slot back and gives its memory to the system. CacheError for one that is not taken."""
        if offset not in self._taken:
            raise CacheError(f"no slot at offset {offset} is taken")
        self._taken.remove(offset)
        heapq.heappush(self._free, offset // self.slot_bytes)
        self._mapping.remove(offset, self.slot_bytes)

    def statistics(self) -> ArenaStatistics:
        return ArenaStatistics(
            slot_bytes=self.slot_bytes,
            capacity=self.capacity,
            taken=self.taken,
            bytes_taken=self.bytes_taken,
            most_taken=self._most_taken,
        )

    def close(self) -> None:
        """Gives all memory back, unmaps and closes. Idempotent."""
        if self._used:
            # At once, also where a process that user code forked off has inherited the mapping.
            self._mapping.remove(0, self._used * self.slot_bytes)
        self._used = 0
        self._mapping.close()
        self._file.close()

    def __repr__(self) -> str:
        state = "closed" if self._file.number < 0 else f"{self.taken} of {self.capacity} slots taken"
        return f"<Arena {state}>"


def _open_file(directory: Path | None) -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create(_NAME, os.MFD_CLOEXEC)
    number, path = tempfile.mkstemp(prefix=_NAME, dir=directory)
    os.unlink(path)
    return number


def _fallocate(fd: int, offset: int, n_bytes: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, offset, n_bytes)
        return
    for at in range(offset, offset + n_bytes, len(_ZEROS)):
        os.pwrite(fd, _ZEROS[: offset + n_bytes - at], at)
