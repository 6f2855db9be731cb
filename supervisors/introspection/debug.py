"""What can be seen of a running server: events, and who is shown them. Off, it costs a server one test per message."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias

import attrs
import trio

from supervisors.calls.call import ABANDONED, FAILED, From
from supervisors.processes.mailbox import CALL, CAST, CHILD_EXIT, CHILD_READY, INFO, RETRY, STOP, SYSTEM
from supervisors.processes.pid import AnyPid, Pid
from supervisors.processes.reports import limited_repr, logger

trace_logger = logging.getLogger("supervisors.trace")

KINDS: Final = {
    INFO: "info",
    CAST: "cast",
    CALL: "call",
    STOP: "stop",
    CHILD_READY: "child_ready",
    CHILD_EXIT: "child_exit",
    RETRY: "retry",
}


@attrs.frozen
class MessageIn:
    """A server takes something up: ``kind`` is call, cast, info, stop, continue, timeout, or the kind of a machine's
    timeout. ``sender`` is the process it came from, None for a task outside any process. ``at`` is trio's clock."""

    pid: Pid[Any]
    at: float
    kind: str
    message: Any
    sender: Pid[Any] | None = None

    def describe(self, show: Callable[[Any], object]) -> str:
        """The event in words, the message as ``show`` gives it."""
        origin = "" if self.sender is None else f" from {self.sender!r}"
        return f"got {self.kind} {limited_repr(show(self.message), 3)}{origin}"


@attrs.frozen
class ReplyOut:
    """A call is answered, or fails when ``failed``; ``to`` is the caller, None for a task outside any process."""

    pid: Pid[Any]
    at: float
    value: Any
    to: Pid[Any] | None = None
    failed: bool = False

    def describe(self, show: Callable[[Any], object]) -> str:
        """The event in words, the value as ``show`` gives it."""
        return f"{'failed' if self.failed else 'answered'} {self.to!r} with {limited_repr(show(self.value), 3)}"


@attrs.frozen
class NoReplyOut:
    """Something was handled and nothing was answered (yet)."""

    pid: Pid[Any]
    at: float

    def describe(self, show: Callable[[Any], object]) -> str:
        """The event in words."""
        return "no reply"


@attrs.frozen
class StateChange:
    """A machine went from one state to another."""

    pid: Pid[Any]
    at: float
    old: Any
    new: Any

    def describe(self, show: Callable[[Any], object]) -> str:
        """The event in words."""
        return f"state {limited_repr(self.old, 3)} -> {limited_repr(self.new, 3)}"


@attrs.frozen
class EventPostponed:
    """A machine put an event off until its next change of state."""

    pid: Pid[Any]
    at: float
    kind: str
    message: Any

    def describe(self, show: Callable[[Any], object]) -> str:
        """The event in words, the message as ``show`` gives it."""
        return f"postponed {self.kind} {limited_repr(show(self.message), 3)}"


DebugEvent: TypeAlias = MessageIn | ReplyOut | NoReplyOut | StateChange | EventPostponed
DebugFunction: TypeAlias = Callable[[DebugEvent, Any], object]
"""Given each event and the server's state; it is dropped when it returns True or raises."""


@attrs.frozen
class ServerStatistics:
    """What a server did between ``since`` and ``now`` (trio's clock)."""

    since: float
    now: float
    calls: int
    casts: int
    infos: int
    timeouts: int
    replies: int

    @property
    def messages_in(self) -> int:
        """Calls, casts and other messages."""
        return self.calls + self.casts + self.infos


class Observed(Protocol):
    """What is needed of a server's loop."""

    pid: AnyPid
    debug: Debug | None

    def state(self) -> object: ...
    def show_message(self, message: Any) -> object: ...


class ObservedFrom(From):
    """A call that was taken up while its server was observed: its answer is an event, whoever gives it.

    A call becomes one by its class, so that those of a server that nobody observes pay nothing.
    """

    __slots__ = ()

    def resolve_with(self, state: int, value: object) -> None:
        """Answer, and tell of it when it is the first answer and the server still lives."""
        answers = self.pending and state != ABANDONED and self.server.alive
        super().resolve_with(state, value)
        loop = self.server._loop
        if answers and loop is not None and loop.debug is not None:
            loop.debug.record(ReplyOut(self.server, trio.current_time(), value, self.caller, state == FAILED))


class Debug:
    """Those who observe one server. Its loop has none while nobody does."""

    __slots__ = ("counts", "functions", "loop", "ring", "since", "tracer")

    def __init__(self, loop: Observed) -> None:
        self.loop = loop
        self.tracer: Callable[[DebugEvent], object] | bool = False
        self.ring: deque[DebugEvent] | None = None
        self.since = trio.current_time()
        self.counts: dict[str, int] | None = None
        self.functions: list[DebugFunction] = []

    @property
    def idle(self) -> bool:
        """True when nobody is left to be shown anything."""
        return self.tracer is False and self.ring is None and self.counts is None and not self.functions

    # -- what the loop tells

    def received(self, kind: int, payload: Any, from_: From | AnyPid | None) -> None:
        """A message was taken from the mailbox."""
        if kind == SYSTEM:
            return
        sender = from_
        if isinstance(from_, From):
            sender = from_.caller
            from_.__class__ = ObservedFrom
        assert not isinstance(sender, From)
        self.took_up(KINDS[kind], payload, sender)

    def took_up(self, kind: str, message: Any, sender: AnyPid | None = None) -> None:
        """Something is about to be handled."""
        self.record(MessageIn(self.loop.pid, trio.current_time(), kind, message, sender))

    def no_reply(self) -> None:
        """It was handled without an answer."""
        self.record(NoReplyOut(self.loop.pid, trio.current_time()))

    def changed(self, old: Any, new: Any) -> None:
        """The machine went to another state."""
        self.record(StateChange(self.loop.pid, trio.current_time(), old, new))

    def postponed(self, kind: str, message: Any) -> None:
        """The machine put an event off."""
        self.record(EventPostponed(self.loop.pid, trio.current_time(), kind, message))

    def record(self, event: DebugEvent) -> None:
        """Show an event to all; whoever raises is shown no more, and the server lives."""
        if self.counts is not None:
            key = event.kind if isinstance(event, MessageIn) else type(event).__name__
            self.counts[key] = self.counts.get(key, 0) + 1
        if self.ring is not None:
            self.ring.append(event)
        if self.tracer is True:
            trace_logger.info("%r %s", event.pid, event.describe(self.loop.show_message), extra={"event": event})
        elif callable(self.tracer):
            try:
                self.tracer(event)
            except Exception:
                logger.warning("%r: trace function %r raised and is dropped", event.pid, self.tracer, exc_info=True)
                self.tracer = False
        for function in tuple(self.functions):
            try:
                done = function(event, self.loop.state()) is True
            except Exception:
                logger.warning("%r: debug function %r raised and is dropped", event.pid, function, exc_info=True)
                done = True
            if done and function in self.functions:
                self.functions.remove(function)
        if self.idle:
            self.loop.debug = None

    # -- what was seen

    def statistics(self) -> ServerStatistics | None:
        """The counters, or None when nothing is counted."""
        counts = self.counts
        if counts is None:
            return None
        return ServerStatistics(
            since=self.since,
            now=trio.current_time(),
            calls=counts.get("call", 0),
            casts=counts.get("cast", 0),
            infos=counts.get("info", 0),
            timeouts=sum(count for kind, count in counts.items() if kind.endswith("timeout")),
            replies=counts.get("ReplyOut", 0),
        )
