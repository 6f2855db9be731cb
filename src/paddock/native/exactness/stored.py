"""Certificates on disk, so that a model is probed once for one set of parameters and one library build.

One JSON file a certificate, named by a hash of everything that it was made for. What cannot be read is made again,
what cannot be written is not kept: neither is an error.
"""

from __future__ import annotations

import os
import tempfile
from hashlib import blake2b
from pathlib import Path

import attrs
import msgspec

from paddock.native.exactness.certificate import Certificate
from paddock.telemetry.loggers import get_logger

__all__ = ["certificate_path", "read_certificate", "write_certificate"]

_LOG = get_logger("paddock.exactness")
_VERSION = 1
"""Of the probe: one that checks more must not be answered by what an older one found."""
_MAX_BYTES = 1 << 20


def certificate_path(folder: Path, *made_for: object) -> Path:
    """Where the certificate for ``made_for`` (values that JSON can hold) is kept."""
    described = msgspec.json.encode((_VERSION, *made_for), order="sorted")
    return folder / f"{blake2b(described, digest_size=20).hexdigest()}.json"


def read_certificate(path: Path) -> Certificate | None:
    """A certificate that was written before; None where there is none, or none that can be read."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            return None
        return attrs.evolve(msgspec.json.decode(path.read_bytes(), type=Certificate), stored=True)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        _LOG.warning("certificate cannot be read; the model is probed again", error=str(error))
        return None


def write_certificate(path: Path, certificate: Certificate) -> None:
    """Writes it whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(certificate))
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        _LOG.warning("certificate cannot be kept; the model is probed at each load", error=str(error))
