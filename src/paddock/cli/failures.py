"""How a command ends that does not succeed: exit codes, one line for people, one object for programs."""

from __future__ import annotations

import signal
from collections.abc import Iterator

from paddock.cli.output import note, write_json
from paddock.errors import PaddockError

__all__ = ["DONE", "FAILED", "Interrupted", "error_object", "leading_error", "report_failure"]

DONE = 0
FAILED = 1
"""2, a usage error, is click's; 128 + n is for signal n: 130 for Ctrl-C, 143 for SIGTERM."""


class Interrupted(Exception):
    """A signal asked the command to end; it has stopped in order."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(signum).name}")
        self.signal = signal.Signals(signum).name
        self.signum = signum

    @property
    def exit_code(self) -> int:
        return 128 + self.signum


def leading_error(error: BaseException) -> BaseException:
    """The error to report: of a group that tasks raised together, one that was raised on purpose if there is one."""
    leaves = list(_leaves(error))
    for kind in (PaddockError, OSError):
        for leaf in leaves:
            if isinstance(leaf, kind):
                return leaf
    return leaves[0]


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def error_object(error: BaseException) -> dict[str, object]:
    """``{"error": {"type", "message", ...}}`` with the error's public attributes."""
    attributes = {name: value for name, value in vars(error).items() if not name.startswith("_")}
    described = {"type": type(error).__name__, "message": _message(error)}
    return {"error": {**described, **attributes, **described}}


def report_failure(error: BaseException, *, as_json: bool) -> None:
    """Says what went wrong: an object on stdout with ``--json``, and one line on stderr otherwise."""
    if as_json:
        write_json(error_object(error))
    elif isinstance(error, Interrupted):
        note(f"paddock: {error}")
    else:
        note(f"paddock: error: {_message(error)} [{type(error).__name__}]")


def _message(error: BaseException) -> str:
    text = " ".join(str(error).split()) or "no further message"
    if isinstance(error, PaddockError | Interrupted | OSError):
        return text
    return f"internal error: {text}; run again with --log-level debug to see where"
