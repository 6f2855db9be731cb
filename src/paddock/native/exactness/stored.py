"""Certificates on disk, so that a model is probed once for one set of parameters and one library build.

One JSON file a certificate, named by a hash of everything that it was made for, with a checksum over that name and the
certificate: a damaged file, or one that lies under another's name, proves nothing. What cannot be read is made again,
what cannot be written is not kept: neither is an error.
"""

from __future__ import annotations

import os
import stat
import tempfile
from hashlib import blake2b
from pathlib import Path

import attrs
import msgspec

from paddock.native.exactness.certificate import Certificate
from paddock.telemetry.loggers import get_logger

__all__ = ["certificate_path", "read_certificate", "write_certificate"]

_LOG = get_logger("paddock.exactness")
_VERSION = 2
"""Of the probe: one that checks more must not be answered by what an older one found."""
_MAX_BYTES = 1 << 20


@attrs.frozen
class _Kept:
    certificate: msgspec.Raw
    checksum: str


def certificate_path(folder: Path, *made_for: object) -> Path:
    """Where the certificate for ``made_for`` (values that JSON can hold) is kept."""
    described = msgspec.json.encode((_VERSION, *made_for), order="sorted")
    return folder / f"{blake2b(described, digest_size=20).hexdigest()}.json"


def read_certificate(path: Path) -> Certificate | None:
    """A certificate that was written before; None where there is none, or none that can be read."""
    try:
        kept = msgspec.json.decode(_content(path), type=_Kept)
        content = bytes(kept.certificate)
        if kept.checksum != _checksum(path, content):
            raise ValueError("its checksum is wrong")
        return attrs.evolve(msgspec.json.decode(content, type=Certificate), stored=True)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        _LOG.warning("certificate cannot be read; the model is probed again", error=str(error))
        return None


def _content(path: Path) -> bytes:
    """A pipe or a device in the file's place has no end, and a pipe not even a beginning."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is no regular file")
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(_MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > _MAX_BYTES:
        raise ValueError("it is too long")
    return content


def _checksum(path: Path, content: bytes) -> str:
    return blake2b(path.stem.encode() + b"\0" + content, digest_size=16).hexdigest()


def write_certificate(path: Path, certificate: Certificate) -> None:
    """Writes it whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                content = msgspec.json.encode(certificate)
                file.write(msgspec.json.encode(_Kept(msgspec.Raw(content), _checksum(path, content))))
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        _LOG.warning("certificate cannot be kept; the model is probed at each load", error=str(error))
