"""The command group ``paddock``: its exit codes, and what a signal does before any event loop runs."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import click

from paddock.cli.failures import FAILED
from paddock.cli.output import note, open_missing_streams

__all__ = ["Program"]


class Program(click.Group):
    """0 done, 1 failed, 2 usage, 130 Ctrl-C, 143 SIGTERM."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """As click's, but that Ctrl-C gives 130 and an end of input is not taken for it."""
        open_missing_streams()
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        with _sigterm_exits():
            try:
                code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            except click.ClickException as error:
                error.show()
                sys.exit(error.exit_code)
            except (click.Abort, KeyboardInterrupt):
                note("paddock: interrupted by SIGINT")
                sys.exit(130)
            except OSError as error:  # the help itself could not be written
                note(f"paddock: error: {error} [{type(error).__name__}]")
                sys.exit(FAILED)
        sys.exit(code if isinstance(code, int) else 0)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which a newcomer meets them."""
        return list(self.commands)


@contextmanager
def _sigterm_exits() -> Iterator[None]:
    """Before and after the event loop, SIGTERM ends the program with its own exit code."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, _exit_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _exit_terminated(signum: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + signum)
