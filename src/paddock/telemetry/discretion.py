"""Reports of crashes that hold nobody's words: no text and no token ids, neither of a message nor of an exception.

What an exception says may be what it failed on: a UnicodeDecodeError carries the bytes, a KeyError the token. So a
process that handles text ends with the *outline* of an exception (:mod:`paddock.telemetry.outline`), its type and where
it was raised. That is also what its supervisor reports, and the processes that are linked to it.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ParamSpec

import supervisors as sup
from paddock.telemetry.outline import outline

__all__ = ["Discreet", "discreet"]

P = ParamSpec("P")


def _outlined(reason: object) -> object:
    return sup.Crashed(outline(reason.exception)) if isinstance(reason, sup.Crashed) else reason


class _Behaviour:
    """What stands behind it."""

    if TYPE_CHECKING:

        @classmethod
        async def run_behaviour(cls, pid: sup.Pid[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None: ...


class Discreet(_Behaviour):
    """In front of a server's or state machine's base class: its reports name messages and exceptions by their type."""

    @classmethod
    async def run_behaviour(cls, pid: sup.Pid[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Runs it; the process ends with the outline of what it crashed with."""
        try:
            await super().run_behaviour(pid, args, kwargs)
        except sup.Exit as ended:
            shown: Exception = type(ended)(_outlined(ended.reason))
        except Exception as crash:
            shown = outline(crash)
        else:
            return
        raise shown  # out here, so that it does not carry the other one along as its context

    def format_message(self, message: Any) -> Any:
        """Its type."""
        return f"<{type(message).__name__}>"

    def format_reason(self, reason: object) -> object:
        """An exception is outlined."""
        return _outlined(reason)


def discreet(body: Callable[P, Awaitable[None]]) -> Callable[P, Awaitable[None]]:
    """The same for the body of a process that is a function."""

    @functools.wraps(body)
    async def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            await body(*args, **kwargs)
        except sup.Exit:
            raise
        except Exception as crash:
            shown = outline(crash)
        else:
            return
        raise shown

    return run
