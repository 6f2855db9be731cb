"""Reads the primitive values of a GGUF header: numbers, strings and arrays, within fixed bounds.

Nothing is allocated on the word of the file: a count is compared with the bytes that are left before
anything is read, and with bounds that no real model reaches.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

import attrs
import numpy as np
import numpy.typing as npt

from paddock.errors import AbsurdGguf, CorruptGguf, TruncatedGguf

__all__ = ["GgufArray", "GgufReader", "GgufValue"]

MAX_STRING = 64 * 2**20
MAX_ARRAY = 2**26
MAX_HEADER = 2**30
_STEP = 2**20

_STRING, _ARRAY, _BOOL = 8, 9, 7
_NUMBERS: dict[int, str] = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "<u1", 10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


@attrs.frozen(eq=False)
class GgufArray:
    """An array of the header: ``numbers`` for numeric item types, ``strings`` (undecoded) for strings."""

    item_type: int
    numbers: npt.NDArray[np.generic] | None = None
    strings: tuple[bytes, ...] | None = None

    def __len__(self) -> int:
        if self.strings is not None:
            return len(self.strings)
        return 0 if self.numbers is None else len(self.numbers)


GgufValue = int | float | bool | str | GgufArray


class GgufReader:
    """A cursor over the header of an open file, which it reads in steps of 1 MiB as far as is asked for."""

    def __init__(self, file: BinaryIO, path: str, size: int) -> None:
        self._file = file
        self._path = path
        self._size = size
        self._data = bytearray()
        self.offset = 0

    def absurd(self, problem: str) -> AbsurdGguf:
        return AbsurdGguf(self._path, f"corrupt GGUF: {problem}")

    def corrupt(self, problem: str) -> CorruptGguf:
        return CorruptGguf(self._path, f"corrupt GGUF: {problem}")

    def require(self, count: int, what: str) -> None:
        """Makes ``count`` more bytes available, or raises TruncatedGguf."""
        end = self.offset + count
        if end <= len(self._data):
            return
        if end > self._size:
            raise TruncatedGguf(
                self._path, f"truncated: {what} ends at byte {end}, but the file has {self._size}; fetch it again"
            )
        if end > MAX_HEADER:
            raise self.absurd(f"its header is longer than {MAX_HEADER} bytes")
        wanted = max(end - len(self._data), _STEP)
        self._data += self._file.read(wanted)
        if end > len(self._data):
            raise TruncatedGguf(self._path, f"truncated while it was read, at {what}")

    def take(self, count: int, what: str) -> bytes:
        self.require(count, what)
        start, self.offset = self.offset, self.offset + count
        return bytes(self._data[start : self.offset])

    def u32(self, what: str) -> int:
        return int(_U32.unpack(self.take(4, what))[0])

    def u64(self, what: str) -> int:
        return int(_U64.unpack(self.take(8, what))[0])

    def string(self, what: str) -> bytes:
        length = self.u64(what)
        if length > MAX_STRING:
            raise self.absurd(f"the string of {what} claims {length} bytes")
        return self.take(length, what)

    def value(self, key: str) -> GgufValue:
        """The value of one metadata pair, its type included."""
        kind = self.u32(key)
        if kind == _ARRAY:
            return self._array(key)
        if kind == _STRING:
            return self.string(key).decode("utf-8", "replace")
        return self._number(kind, key)

    def _number(self, kind: int, key: str) -> int | float | bool:
        if kind not in _NUMBERS:
            raise self.corrupt(f"{key} has the unknown type {kind}")
        dtype = np.dtype(_NUMBERS[kind])
        value = np.frombuffer(self.take(dtype.itemsize, key), dtype)[0].item()
        return bool(value) if kind == _BOOL else value

    def _array(self, key: str) -> GgufArray:
        kind, count = self.u32(key), self.u64(key)
        if count > MAX_ARRAY:
            raise self.absurd(f"the array {key} claims {count} items")
        if kind == _STRING:
            return GgufArray(kind, strings=self._strings(count, key))
        if kind not in _NUMBERS:
            raise self.corrupt(f"the array {key} has the unknown item type {kind}")
        dtype = np.dtype(_NUMBERS[kind])
        return GgufArray(kind, numbers=np.frombuffer(self.take(count * dtype.itemsize, key), dtype))

    def _strings(self, count: int, key: str) -> tuple[bytes, ...]:
        """A vocabulary may have 250,000 strings, and as many merges: a tight loop over the bytes at hand."""
        self.require(8 * count, key)  # a length each, at the least: bounds the loop by the size of the file
        unpack, data, offset = _U64.unpack_from, self._data, self.offset
        strings = []
        for _ in range(count):
            if offset + 8 > len(data):
                self.offset = offset
                self.require(8, key)
            (length,) = unpack(data, offset)
            start = offset + 8
            offset = start + length
            if offset > len(data):
                if length > MAX_STRING:
                    raise self.absurd(f"a string of {key} claims {length} bytes")
                self.offset = start
                self.require(length, key)
            strings.append(bytes(data[start:offset]))
        self.offset = offset
        return tuple(strings)
