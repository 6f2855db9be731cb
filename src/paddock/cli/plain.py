"""From Paddock's values to what JSON can say, and from text to what a terminal may be shown."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import attrs

__all__ = ["as_json", "plain", "printable"]

_CONTROL_PICTURES = {
    **{code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"},
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
}


def plain(value: object) -> Any:
    """``value`` as dicts, lists, strings and numbers.

    Numbers that JSON does not have become the strings "nan", "inf" and "-inf"; bytes become text.
    """
    if attrs.has(kind := type(value)):
        return {field.name: plain(getattr(value, field.name)) for field in attrs.fields(kind)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("utf-8", "backslashreplace")
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value) if isinstance(value, PurePath) else repr(value)


def as_json(value: object, *, encoding: str = "utf-8", indent: int | None = None) -> bytes:
    """One JSON object and a line end, on one line without ``indent``. What ``encoding`` lacks is escaped, lone
    surrogates too."""
    prepared = plain(value)
    try:
        return (json.dumps(prepared, indent=indent, ensure_ascii=False, allow_nan=False) + "\n").encode(encoding)
    except UnicodeEncodeError:
        return (json.dumps(prepared, indent=indent, allow_nan=False) + "\n").encode("ascii")


def printable(text: str) -> str:
    """``text`` without the control characters by which a model or a file could steer a terminal."""
    return text.translate(_CONTROL_PICTURES)
