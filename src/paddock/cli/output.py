"""Standard output: results and nothing else. Everything that is not a result goes to stderr."""

from __future__ import annotations

import io
import os
import select
import sys
import threading

import click

from paddock.cli.plain import as_json, printable

__all__ = [
    "end_line",
    "note",
    "open_missing_streams",
    "silence_standard_output",
    "write_json",
    "write_text",
    "write_text_in_thread",
]


_writing = threading.Lock()
"""Held by whoever writes streamed text."""

_LAST_WRITE_SECONDS = 0.5


def note(line: str) -> None:
    """One line for the person at the terminal, on stderr; a closed stderr is no reason to fail."""
    try:
        click.echo(printable(line), err=True)
    except OSError:
        pass


def write_json(value: object) -> None:
    """The one JSON object of a command: a line, or indented on a terminal. Raises BrokenPipeError when nobody reads."""
    _write(as_json(value, encoding=sys.stdout.encoding or "utf-8", indent=2 if sys.stdout.isatty() else None))


def write_text(text: str) -> None:
    """Text to stdout; on a terminal without control characters. Blocks while the reader does not read."""
    shown = printable(text) if sys.stdout.isatty() else text
    _write(shown.encode(sys.stdout.encoding or "utf-8", "replace"))


async def write_text_in_thread(text: str) -> None:
    """The same from a task: a reader that is slow, or a terminal that is stopped, must not stop the event loop.

    A checkpoint; when cancelled, the text is written whole or not at all, and nothing of it after :func:`end_line`.
    """
    import trio

    abandoned = threading.Event()

    def write() -> None:
        with _writing:
            if not abandoned.is_set():
                write_text(text)

    try:
        await trio.to_thread.run_sync(write, abandon_on_cancel=True)
    except trio.Cancelled:
        abandoned.set()
        raise


def end_line() -> None:
    """Ends a line of streamed text, behind what a thread may still be writing; not where the reader has stopped
    reading, which would hold up the end of the program."""
    if _writing.acquire(timeout=_LAST_WRITE_SECONDS):
        try:
            write_text("\n")
        finally:
            _writing.release()


def _write(data: bytes) -> None:
    """Past Python's buffer, whose lock a thread that waits for a reader would hold beyond the program's end."""
    sys.stdout.flush()
    try:
        descriptor = sys.stdout.fileno()
    except (io.UnsupportedOperation, AttributeError):
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


def open_missing_streams() -> None:
    """Opens stdin, stdout and stderr to nothing where the program was started without them: the next socket would
    get their numbers, and whoever prints would print into it."""
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            try:
                os.fstat(descriptor)
            except OSError:
                opened = os.open(os.devnull, os.O_RDWR)
                if opened != descriptor:
                    os.dup2(opened, descriptor)
                    os.close(opened)
            os.set_inheritable(descriptor, True)
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115  (as long as the program)


def silence_standard_output() -> None:
    """Nobody reads any more: what Python still holds for stdout goes nowhere, instead of failing at exit."""
    try:
        descriptor = sys.stdout.fileno()
    except (io.UnsupportedOperation, AttributeError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
