"""Where a prompt comes from: the command line, or stdin."""

from __future__ import annotations

import sys

import click

from paddock.errors import InvalidParameter

__all__ = ["MAX_PROMPT_BYTES", "prompt_from"]

MAX_PROMPT_BYTES = 64 * 1024 * 1024
"""More than any context holds; stdin is not read beyond it."""


def prompt_from(argument: str | None) -> str | bytes:
    """The prompt as given, or the bytes of stdin for ``-`` and for none at all, without one line end at the end.

    Raises click's UsageError when there is none and stdin is a terminal, InvalidParameter for an endless one.
    """
    if argument is not None and argument != "-":
        return argument
    if argument is None and sys.stdin.isatty():
        raise click.UsageError("give a PROMPT, or - to read it from stdin")
    data = sys.stdin.buffer.read(MAX_PROMPT_BYTES + 1)
    if len(data) > MAX_PROMPT_BYTES:
        raise InvalidParameter("prompt", data[:32], f"at most {MAX_PROMPT_BYTES} bytes")
    return data.removesuffix(b"\n").removesuffix(b"\r")
