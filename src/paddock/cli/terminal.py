"""The state of the terminal, which outlives the program and must be left as it was."""

from __future__ import annotations

import os
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["is_interactive", "kept_terminal", "restore_terminal"]

_SHOW_CURSOR = b"\x1b[?25h"

_saved: list[tuple[int, list[Any]]] = []


def is_interactive(descriptor: int) -> bool:
    """Whether a person sits there, at a terminal that can do more than print lines."""
    return os.isatty(descriptor) and os.environ.get("TERM", "") not in ("", "dumb")


@contextmanager
def kept_terminal() -> Iterator[None]:
    """Remembers how the terminal at stdin is set, and sets it so again: line editing in a thread that is left
    behind would leave it without echo."""
    try:
        settings = termios.tcgetattr(0)
    except termios.error:  # no terminal
        yield
        return
    _saved.append((0, settings))
    try:
        yield
    finally:
        _restore_settings()
        _saved.pop()


def restore_terminal() -> None:
    """Before leaving in a hurry: the terminal's settings, and the cursor that a live display hides."""
    _restore_settings()
    if sys.stderr is not None and os.isatty(2):
        os.write(2, _SHOW_CURSOR)


def _restore_settings() -> None:
    for descriptor, settings in _saved:
        try:
            termios.tcsetattr(descriptor, termios.TCSANOW, settings)
        except termios.error:
            pass  # the terminal is gone
