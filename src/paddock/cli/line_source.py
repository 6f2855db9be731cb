"""Lines from a person or a pipe, waited for in a way that a signal can end."""

from __future__ import annotations

import os
from typing import Protocol

import trio

from paddock.cli.output import note

__all__ = ["MAX_LINE_BYTES", "DescriptorLines", "LineSource", "TerminalLines"]

MAX_LINE_BYTES = 16 * 1024 * 1024


class LineSource(Protocol):
    async def next_line(self) -> str | None:
        """The next line without its end; None when there are no more. A checkpoint; cancelling it loses at most
        what was typed so far. Bytes that are no UTF-8 come as lone surrogates."""


class TerminalLines:
    """Lines edited at a terminal, with a history (of this conversation only; nothing is written to disk)."""

    def __init__(self, prompt: str) -> None:
        try:
            import readline
        except ImportError:
            pass  # the terminal's own line editing remains
        else:
            readline.set_auto_history(True)
        self._prompt = prompt

    async def next_line(self) -> str | None:
        # The thread stays behind when the wait is cancelled: nothing can interrupt a read of the terminal but its end.
        # It is a daemon, and whoever cancels restores the terminal.
        return await trio.to_thread.run_sync(self._read, abandon_on_cancel=True)

    def _read(self) -> str | None:
        try:
            return input(self._prompt)
        except UnicodeDecodeError as error:
            return error.object.decode("utf-8", "surrogateescape")
        except (EOFError, OSError, ValueError):
            return None


class DescriptorLines:
    """Lines of a pipe, a file, or a terminal whose output goes elsewhere (``prompt`` is then shown on stderr)."""

    def __init__(self, descriptor: int, prompt: str | None = None) -> None:
        self._descriptor = descriptor
        self._prompt = prompt
        self._buffer = b""
        self._ended = False

    async def next_line(self) -> str | None:
        if self._prompt is not None:
            note(self._prompt)
        while b"\n" not in self._buffer and not self._ended and len(self._buffer) < MAX_LINE_BYTES:
            chunk = await self._read()
            self._buffer += chunk
            self._ended = not chunk
        if not self._buffer:
            return None
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.removesuffix(b"\r").decode("utf-8", "surrogateescape")

    async def _read(self) -> bytes:
        try:
            await trio.lowlevel.wait_readable(self._descriptor)
        except OSError:  # a regular file, which cannot be waited for and never makes anyone wait
            await trio.lowlevel.checkpoint()
        return os.read(self._descriptor, 65_536)
