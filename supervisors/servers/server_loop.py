"""What the loops of servers and state machines share: the way out, and what introspection asks of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeAlias

import trio

from supervisors.introspection.debug import Debug
from supervisors.introspection.system import shown_log
from supervisors.processes.pid import AnyPid
from supervisors.processes.reports import report_crash
from supervisors.reasons import Exit, Reason, ReportedExit, fatal_part, is_abnormal, reason_of

from .behaviour import IGNORE
from .results import Stop

Server: TypeAlias = Any
"""A GenServer or GenStatem: whatever has the three ``format_`` methods."""


class Stopping(Exception):
    """A callback or a message asked the server to stop."""

    def __init__(self, reason: Reason) -> None:
        self.reason = reason


async def run_init(pid: AnyPid, server: Server) -> Any:
    """What the server's ``init`` gives; IGNORE leaves its mark on the pid, Stop ends the process."""
    result = await server.init()
    if result is IGNORE:
        pid.ignored = True
    elif isinstance(result, Stop):
        raise Exit(result.reason)
    return result


class ServerLoop(ABC):
    """``serve``, ``terminate``, ``state``, ``replace`` and ``show_state`` are the subclass's."""

    __slots__ = ("client", "debug", "last", "pid", "server", "stopping", "suspended")

    def __init__(self, pid: AnyPid, server: Server) -> None:
        self.pid = pid
        self.server = server
        self.last: Any = None
        """The last message."""
        self.client: AnyPid | None = None
        """Whose call is being handled."""
        self.suspended = False
        self.stopping = False
        self.debug: Debug | None = None
        pid._loop = self

    # -- for the subclass

    @abstractmethod
    async def serve(self, first: Any) -> None:
        """Do what init asked for, then handle messages until something raises."""

    @abstractmethod
    async def terminate(self, reason: Reason) -> None:
        """Call the server's ``terminate``."""

    @abstractmethod
    def state(self) -> object:
        """What `get_state` gives."""

    @abstractmethod
    def replace(self, new: Any) -> object:
        """Put ``new`` in the place of the state."""

    @abstractmethod
    def show_state(self) -> dict[str, object]:
        """The part of the status that describes the state."""

    # -- life

    async def run(self, first: Any) -> None:
        """Serve; whatever ends that ends the server, after its ``terminate``."""
        reason: Reason = None
        try:
            await self.serve(first)
        except trio.Cancelled:
            raise
        except Stopping as stopping:
            reason = stopping.reason
        except BaseException as exc:
            if fatal_part(exc) is not None or self.pid._scope.cancel_called:
                raise
            await self.end(reason_of(exc))
        await self.end(reason)

    async def end(self, reason: Reason) -> None:
        """Terminate, report a crash, once, and end the process."""
        self.stopping = True
        try:
            await self.terminate(reason)
        except trio.Cancelled:
            raise
        except BaseException as exc:
            if fatal_part(exc) is not None:
                raise
            reason = reason_of(exc)
        if is_abnormal(reason):
            report_crash(
                self.pid,
                self.guarded("format_reason", reason),
                last_message=self.show_message(self.last),
                state=self.reported_state(),
                client=self.client,
                log=shown_log(self),
            )
        raise ReportedExit(reason)

    # -- what others see

    def guarded(self, formatter: str, *args: object) -> Any:
        """What a ``format_`` method of the server gives, or that it raised: a fault in it must not hurt the server,
        nor show what it may have been meant to hide."""
        try:
            return getattr(self.server, formatter)(*args)
        except Exception as exc:
            return f"<{formatter} raised {type(exc).__name__}>"

    def show_message(self, message: Any) -> object:
        """A message as the server wants it shown."""
        return None if message is None else self.guarded("format_message", message)

    def reported_state(self) -> object:
        """The state as a crash report shows it."""
        return self.show_state()

    def status(self) -> dict[str, object]:
        """What `get_status` gives."""
        return {
            "pid": self.pid,
            "module": type(self.server).__name__,
            "suspended": self.suspended,
            "queued": len(self.pid.mailbox),
            "parent": self.pid.parent,
            "log": shown_log(self),
            **self.show_state(),
        }
