"""Exit reasons: why a process ended, as plain values."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import attrs
import trio

Reason: TypeAlias = object
"""Any value may be an exit reason; the classes below are those the runtime itself gives and understands."""


@attrs.frozen
class Normal:
    """The process came to its end by itself."""


@attrs.frozen
class Shutdown:
    """The process was asked to stop in good order; ``detail`` may say why."""

    detail: object = None


@attrs.frozen
class Killed:
    """The process was ended without being asked."""


@attrs.frozen
class NoProcReason:
    """There was no such process when it was looked for."""


@attrs.frozen
class Crashed:
    """An exception left the process; compared by the identity of the exception."""

    exception: BaseException


class Exit(Exception):
    """Raise it inside a process to end that process with ``reason``."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class ReportedExit(Exit):
    """The last word of a behaviour's loop, which has logged the crash if it was one."""


NORMAL: Final = Normal()
SHUTDOWN: Final = Shutdown()
KILLED: Final = Killed()
NO_PROC: Final = NoProcReason()

FATAL: Final = (KeyboardInterrupt, SystemExit, trio.TrioInternalError)
"""What no process may keep to itself: these leave its task and bring the program to an orderly stop."""


def is_normal(reason: Reason) -> bool:
    """True for ``Normal`` and ``Shutdown``, the reasons that log no crash and do not restart a transient child."""
    return isinstance(reason, (Normal, Shutdown))


def is_abnormal(reason: Reason) -> bool:
    """The opposite of `is_normal`."""
    return not is_normal(reason)


def sole_exception(exc: BaseException) -> BaseException:
    """The one exception inside nested groups of one, so that a crash in a nursery reads like any other crash."""
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc


def reason_of(exc: BaseException) -> Reason:
    """The exit reason of a process that ``exc`` left."""
    exc = sole_exception(exc)
    if isinstance(exc, Exit):
        return exc.reason
    return Crashed(exc)


def cause_of(reason: Reason) -> BaseException | None:
    """The exception behind a reason, also behind that of a child that did not start; for ``raise ... from``."""
    step: Any = reason
    while not isinstance(step, Crashed):
        if not hasattr(step, "reason"):
            return None
        step = step.reason
    return step.exception


def is_fatal(reason: Reason) -> bool:
    """True for the reason of a process that a `FATAL` exception left: the program is ending, nothing is restarted."""
    return isinstance(reason, Crashed) and fatal_part(reason.exception) is not None


def fatal_part(exc: BaseException) -> BaseException | None:
    """What of ``exc`` must leave the process's task; None when there is no such part."""
    if isinstance(exc, BaseExceptionGroup):
        part, _ = exc.split(FATAL)
        return part
    return exc if isinstance(exc, FATAL) else None


def is_interrupt(exc: BaseException | None) -> bool:
    """True for Ctrl-C, also somewhere in a group."""
    if isinstance(exc, BaseExceptionGroup):
        return exc.subgroup(KeyboardInterrupt) is not None
    return isinstance(exc, KeyboardInterrupt)
