"""Reads and checks the header of a GGUF file before llama.cpp sees it.

llama.cpp refuses most broken files, but some end its process (a duplicate token string, for one) and others
make it allocate what they claim. This reader knows the format well enough to name the file and the fault.
The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

import attrs

from paddock.errors import (
    DuplicateTokens,
    InvalidModelFile,
    ModelNotFound,
    NotGguf,
    TruncatedGguf,
    UnsupportedArchitecture,
)
from paddock.models.architectures import KNOWN
from paddock.models.ggml_types import GGML_TYPES
from paddock.models.gguf_values import GgufArray, GgufReader, GgufValue
from paddock.models.hyperparameters import find_fault

__all__ = ["GgufArray", "GgufHeader", "GgufValue", "TensorInfo", "read_header"]

MAX_PAIRS = 65_536
MAX_TENSORS = 1_000_000
MAX_DIMENSIONS = 4
MAX_TENSOR_NAME = 63
MAX_TENSOR_BYTES = 2**50

_FLOAT32, _INT32, _STRING = 6, 5, 8


@attrs.frozen
class TensorInfo:
    """One tensor: ``dims`` as in the file (fastest first), ``offset`` from the start of the tensor data,
    bytes.
    """

    name: str
    dims: tuple[int, ...]
    ggml_type: str
    offset: int
    size: int

    @property
    def n_elements(self) -> int:
        count = 1
        for dim in self.dims:
            count *= dim
        return count


@attrs.frozen(eq=False, repr=False)
class GgufHeader:
    """Everything in a GGUF file but the weights."""

    path: Path
    version: int
    metadata: Mapping[str, GgufValue]
    tensors: tuple[TensorInfo, ...]
    data_offset: int
    file_size: int

    def __repr__(self) -> str:
        return f"<GgufHeader {self.path.name!r} v{self.version} {len(self.tensors)} tensors>"


def read_header(path: str | Path) -> GgufHeader:
    """Reads and checks the header of the GGUF file at ``path``; reads no weights.

    Raises :class:`paddock.errors.ModelNotFound` where there is no file, and a kind of
    :class:`paddock.errors.InvalidModelFile` (NotGguf, TruncatedGguf, CorruptGguf, AbsurdGguf,
    DuplicateTokens, UnsupportedArchitecture) that names the fault. Blocks on the file system.
    """
    path = Path(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except (FileNotFoundError, NotADirectoryError):
        raise ModelNotFound(path) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InvalidModelFile(path, f"cannot be read ({reason})") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        folder = stat.S_ISDIR(status.st_mode)
        raise InvalidModelFile(
            path, "is a directory; give the path of the GGUF file in it" if folder else "is not a regular file"
        )
    with open(descriptor, "rb", buffering=0) as file:
        try:
            return _read(GgufReader(file, str(path), status.st_size), path, status.st_size)
        except OSError as error:
            raise InvalidModelFile(path, f"cannot be read ({error.strerror})") from None


def _read(reader: GgufReader, path: Path, file_size: int) -> GgufHeader:
    if file_size < 4 or reader.take(4, "the magic number") != b"GGUF":
        raise NotGguf(path, "is not a GGUF file (it does not begin with GGUF)")
    version = reader.u32("the version")
    if version & 0xFFFF == 0 and version != 0:
        raise reader.corrupt("it is big-endian, which llama.cpp cannot read on this machine")
    if version not in (2, 3):
        raise reader.corrupt(f"format version {version} is not supported (2 and 3 are)")
    n_tensors, n_pairs = reader.u64("the tensor count"), reader.u64("the metadata count")
    if n_tensors > MAX_TENSORS:
        raise reader.absurd(f"it claims {n_tensors} tensors")
    if n_pairs > MAX_PAIRS:
        raise reader.absurd(f"it claims {n_pairs} metadata pairs")
    metadata = _read_metadata(reader, n_pairs)
    _check_architecture(metadata, path, reader)
    _check_vocabulary(metadata, path, reader)
    alignment = _alignment(metadata, reader)
    tensors = _read_tensors(reader, n_tensors, alignment)
    data_offset = -(-reader.offset // alignment) * alignment
    for tensor in tensors:
        end = data_offset + tensor.offset + tensor.size
        if end > file_size:
            raise TruncatedGguf(
                path, f"truncated: tensor {tensor.name} ends at byte {end}, the file at {file_size}; fetch it again"
            )
    return GgufHeader(path, version, metadata, tensors, data_offset, file_size)


def _read_metadata(reader: GgufReader, count: int) -> dict[str, GgufValue]:
    metadata: dict[str, GgufValue] = {}
    for index in range(count):
        raw = reader.string(f"metadata key {index}")
        try:
            key = raw.decode()
        except UnicodeDecodeError:
            raise reader.corrupt(f"metadata key {index} is not UTF-8") from None
        if not key:
            raise reader.corrupt(f"metadata key {index} is empty")
        if key in metadata:
            raise reader.corrupt(f"metadata key {key[:100]!r} stands twice")
        metadata[key] = reader.value(repr(key[:100]))
    return metadata


def _check_architecture(metadata: Mapping[str, GgufValue], path: Path, reader: GgufReader) -> None:
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise reader.corrupt("general.architecture is missing or not a string")
    if architecture not in KNOWN:
        raise UnsupportedArchitecture(
            path, f"has the architecture {architecture[:100]!r}, which the llama.cpp in use does not know"
        )
    fault = find_fault(metadata, architecture)
    if fault is not None:
        raise reader.corrupt(fault)


def _check_vocabulary(metadata: Mapping[str, GgufValue], path: Path, reader: GgufReader) -> None:
    """What llama.cpp takes for granted about the vocabulary and ends the process over."""
    tokens = metadata.get("tokenizer.ggml.tokens")
    if tokens is None:
        return
    if not isinstance(tokens, GgufArray) or tokens.strings is None:
        raise reader.corrupt("tokenizer.ggml.tokens is not an array of strings")
    strings = tokens.strings
    if any(b"\0" in string for string in strings):
        strings = tuple(string.partition(b"\0")[0] for string in strings)  # llama.cpp reads no further
    for key, item_type in (("scores", _FLOAT32), ("token_type", _INT32)):
        array = metadata.get(f"tokenizer.ggml.{key}")
        if array is None:
            continue
        if not isinstance(array, GgufArray) or array.item_type != item_type:
            raise reader.corrupt(f"tokenizer.ggml.{key} has the wrong type")
        if len(array) < len(strings):
            raise reader.corrupt(f"tokenizer.ggml.{key} has {len(array)} entries for {len(strings)} tokens")
    distinct = set(strings)
    if len(distinct) != len(strings):
        seen: set[bytes] = set()
        for index, string in enumerate(strings):
            # llama.cpp gives empty strings names of their own
            if string and string in seen:
                raise DuplicateTokens(path, f"token {index} has the same string {string[:60]!r} as one before it")
            seen.add(string)
    if metadata.get("tokenizer.ggml.model") == "llama":
        # Without them the first character outside the vocabulary ends the process.
        missing = [b for b in range(256) if b"<0x%02X>" % b not in distinct and bytes([b]) not in distinct]
        if missing:
            raise InvalidModelFile(
                path, f"its SentencePiece vocabulary lacks {len(missing)} of 256 byte tokens (0x{missing[0]:02X}, ...)"
            )


def _alignment(metadata: Mapping[str, GgufValue], reader: GgufReader) -> int:
    alignment = metadata.get("general.alignment", 32)
    if isinstance(alignment, bool) or not isinstance(alignment, int) or not 0 < alignment <= 2**20:
        raise reader.corrupt("general.alignment is not a sensible number")
    if alignment & (alignment - 1):
        raise reader.corrupt(f"general.alignment {alignment} is not a power of two")
    return alignment


def _read_tensors(reader: GgufReader, count: int, alignment: int) -> tuple[TensorInfo, ...]:
    tensors: list[TensorInfo] = []
    names: set[str] = set()
    expected = 0
    for index in range(count):
        raw = reader.string(f"the name of tensor {index}")
        if len(raw) > MAX_TENSOR_NAME:
            raise reader.corrupt(f"the name of tensor {index} has {len(raw)} bytes")
        name = raw.decode("utf-8", "replace")
        if name in names:
            raise reader.corrupt(f"tensor {name!r} stands twice")
        names.add(name)
        tensor = _read_tensor(reader, name)
        if tensor.offset != expected:
            raise reader.corrupt(f"tensor {name!r} stands at {tensor.offset} instead of {expected}")
        expected += -(-tensor.size // alignment) * alignment
        if expected > MAX_TENSOR_BYTES:
            raise reader.absurd("its tensors claim more than a pebibyte")
        tensors.append(tensor)
    return tuple(tensors)


def _read_tensor(reader: GgufReader, name: str) -> TensorInfo:
    n_dims = reader.u32(f"tensor {name!r}")
    if n_dims > MAX_DIMENSIONS:
        raise reader.absurd(f"tensor {name!r} claims {n_dims} dimensions")
    dims = tuple(reader.u64(f"tensor {name!r}") for _ in range(n_dims))
    type_id = reader.u32(f"tensor {name!r}")
    if type_id not in GGML_TYPES:
        raise reader.corrupt(f"tensor {name!r} has the unknown type {type_id}")
    kind = GGML_TYPES[type_id]
    offset = reader.u64(f"tensor {name!r}")
    elements = 1
    for dim in dims:
        elements *= dim
    if max((*dims, elements)) > MAX_TENSOR_BYTES:
        raise reader.absurd(f"tensor {name!r} claims the shape {dims}")
    if dims and dims[0] % kind.block_size:
        raise reader.corrupt(f"the rows of tensor {name!r} are no whole blocks of {kind.block_size}")
    return TensorInfo(name, dims, kind.name, offset, elements // kind.block_size * kind.block_bytes)
