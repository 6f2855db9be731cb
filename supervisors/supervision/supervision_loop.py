"""What static and dynamic supervisors share: the nursery, the way out of it, the launch of a child, reports."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextvars import Context
from typing import Any

import attrs
import trio

from supervisors.calls.call import ANSWERED, FAILED, From
from supervisors.errors import NotFound, ServerExited
from supervisors.introspection.debug import Debug
from supervisors.introspection.system import shown_log
from supervisors.nodes.node import KILL_GRACE_SECONDS, stack_of, stop_child
from supervisors.processes.mailbox import CHILD_EXIT, CHILD_READY, INFO, STOP, Item
from supervisors.processes.pid import AnyPid
from supervisors.processes.process import cleanup_scope, kill, launch, watch_exit
from supervisors.processes.reports import SupervisorContext, SupervisorReport, emit, limited_repr, logger
from supervisors.processes.signals import ExitSignal
from supervisors.reasons import NORMAL, Killed, Normal, Reason, ReportedExit, Shutdown
from supervisors.servers.behaviour import prepare

from .backoff import Backoff
from .child_control import ChildQuery
from .child_spec import BRUTAL_KILL, RESTARTING, ChildCounts, ChildInfo, ChildSpec, ChildState

LEVELS: dict[SupervisorContext, int] = {
    "child_terminated": logging.WARNING,
    "start_error": logging.ERROR,
    "shutdown": logging.ERROR,
    "shutdown_error": logging.WARNING,
    "unkillable": logging.ERROR,
    "progress": logging.DEBUG,
}


@attrs.frozen
class FailedToStartChild:
    """The exit reason of a supervisor one of whose first children did not start."""

    id: object
    reason: Reason


class StopSupervising(Exception):
    """The supervisor has to end with ``reason``."""

    def __init__(self, reason: Reason) -> None:
        self.reason = reason


@attrs.define(eq=False)
class Child:
    """One line in a supervisor's table."""

    spec: ChildSpec
    process: AnyPid | None = None
    """Its process: running, starting or stopping."""
    restarting: bool = False
    stopping: bool = False
    last_pid: AnyPid | None = None
    starter: From | None = None
    waiting: list[From] = attrs.field(factory=list)
    restarts: int = 0
    """How often the supervisor has started it again by itself, tries that failed included."""
    failures: int = 0
    """Restarts in a row, as its backoff counts them."""
    ready_at: float = math.inf
    """When it came up, for its backoff."""

    def shown(self) -> AnyPid | ChildState | None:
        """What `which_children` shows in the place of the pid."""
        if self.restarting:
            return RESTARTING
        process = self.process
        return process if process is not None and process.ready and process.alive else None

    @property
    def active(self) -> bool:
        """True when it runs or is being restarted, or has ended and that has not been dealt with yet."""
        return self.restarting or self.process is not None

    def info(self) -> ChildInfo:
        """The line as others see it."""
        return ChildInfo(self.spec.id, self.shown(), self.spec.type, self.spec.restart)


class SupervisionLoop(ABC):
    """The shell around a supervisor's decisions. ``stop_children`` and ``serve`` are the subclass's."""

    def __init__(self, pid: AnyPid, backoff: Backoff | None) -> None:
        self.pid = pid
        self.backoff = backoff
        self.delays_drawn = 0
        self.nursery: trio.Nursery | None = None
        self.suspended = False
        self.stopping = False
        self.debug: Debug | None = None
        self.launched: dict[AnyPid, ChildSpec] = {}
        """The live processes of all children, oldest first."""
        pid._trap_exits = True
        pid._loop = self

    # -- for the subclass

    @abstractmethod
    async def serve(self) -> None:
        """Come up, then handle what arrives, until StopSupervising."""

    @abstractmethod
    async def stop_children(self) -> None:
        """Stop all children and wait for the last."""

    @abstractmethod
    def table(self) -> Iterable[Child]:
        """All children, oldest first."""

    @abstractmethod
    def find(self, child: Any) -> Child:
        """The child of that id or pid; NotFound."""

    # -- life

    async def run(self) -> None:
        """Serve until told to stop; no way out leaves a child behind.

        Children are shielded, each by its own scope, so a nursery that is cancelled, by a bug here, by a fatal
        exception of a child or from outside, would wait for them for ever: hence ``try`` first, and ``finally``.
        """
        reason: Reason = NORMAL
        async with trio.open_nursery() as nursery:
            try:
                self.nursery = nursery
                await self.serve()
            except StopSupervising as stop:
                reason = stop.reason
                self.stopping = True
                with cleanup_scope():
                    await self.stop_children()
            finally:
                await self.clear_away()
        raise ReportedExit(reason)

    async def clear_away(self) -> None:
        """End what still runs: after a kill, past our own deadline, after a fatal exception, or a bug in the above.

        Relies on nothing but the list of processes launched, since the table may be what is broken.
        """
        try:
            with cleanup_scope():
                left = [(pid, spec) for pid, spec in self.launched.items() if pid.alive]
                for pid, spec in reversed(left):
                    await stop_child(pid, spec.shutdown_seconds)
        finally:
            for pid in self.launched:
                kill(pid)

    async def next_item(self, deadline: float = math.inf) -> Item | None:
        """The next item of the mailbox, or None at the deadline. A checkpoint when it has to wait."""
        mailbox = self.pid.mailbox
        item = None
        if deadline == math.inf:
            item = await mailbox.get()
        else:
            with trio.CancelScope(deadline=deadline):
                item = await mailbox.get()
        if self.debug is not None and item is not None:
            self.debug.received(*item)
        return item

    def stop_reason(self, item: Item) -> StopSupervising | None:
        """What to raise when the item tells the supervisor to stop: a stop message, or the exit signal of its parent or
        of a task outside any process. Those of others are logged and dropped, as in OTP."""
        kind, payload, _ = item
        if kind == STOP:
            return StopSupervising(payload)
        if kind == INFO and isinstance(payload, ExitSignal) and payload.pid in (None, self.pid._parent):
            return StopSupervising(payload.reason)
        return None

    # -- children

    def launch_child(self, spec: ChildSpec, context: Context | None = None) -> AnyPid:
        """Start the process of a child; its readiness and its end come as messages. AlreadyStarted, synchronous."""
        function, args, kwargs = spec.start
        label = spec.label
        if label is None:
            label = str(spec.id)
        pid, body, body_args = prepare(
            self.pid.node,
            function,
            args,
            dict(kwargs),
            parent=self.pid,
            name=spec.name,
            label=label,
        )
        if not pid.ready:
            pid._ready_watcher = self._child_ready
        watch_exit(pid, self._child_exit)
        self.launched[pid] = spec
        if context is None:
            launch(self.nursery, pid, body, body_args)
        else:
            # the requester's context, not ours: trace context and the like belong to whoever asked
            context.run(launch, self.nursery, pid, body, body_args)
        return pid

    def _child_ready(self, pid: AnyPid) -> None:
        if pid.alive:
            self.pid.mailbox.put_system((CHILD_READY, pid, None))

    def _child_exit(self, pid: AnyPid) -> None:
        self.launched.pop(pid, None)
        self.pid.mailbox.put_system((CHILD_EXIT, pid, None))

    def restart_delay(self, child: Child) -> float:
        """Seconds to wait before this restart of the child; 0 without a backoff."""
        backoff = self.backoff if child.spec.backoff == "inherit" else child.spec.backoff
        if backoff is None:
            return 0.0
        if trio.current_time() - child.ready_at >= backoff.reset_after:
            child.failures = 0
        child.ready_at = math.inf
        child.failures += 1
        self.delays_drawn += 1
        return backoff.delay(child.failures - 1, backoff.draw(self.delays_drawn))

    def came_up(self, child: Child, pid: AnyPid) -> None:
        """The child is ready."""
        child.restarting = False
        if self.backoff is not None or child.spec.backoff != "inherit":
            child.ready_at = trio.current_time()
        self.report("progress", None, child.spec, pid)

    def report(self, context: SupervisorContext, reason: Reason, child: ChildSpec | None, pid: AnyPid | None) -> None:
        """Log what happened to a child, once."""
        level = LEVELS[context]
        if self.pid.node.report_hooks or logger.isEnabledFor(level):
            emit(self.pid.node, SupervisorReport(self.pid, context, reason, child, pid), level)

    def report_stopped(self, spec: ChildSpec, pid: AnyPid) -> None:
        """Log a child that was being stopped and ended for another reason than that."""
        reason = pid.exit_reason
        expected = isinstance(reason, Killed) if spec.shutdown is BRUTAL_KILL else isinstance(reason, Shutdown)
        if not expected and not (isinstance(reason, Normal) and spec.restart != "permanent"):
            self.report("shutdown_error", reason, spec, pid)

    def report_unkillable(self, spec: ChildSpec, pid: AnyPid) -> None:
        """Log a child that outlives its kill, with its stack."""
        self.report("unkillable", f"still runs {KILL_GRACE_SECONDS:g} s after it was killed", spec, pid)
        logger.error("unkillable child %r still runs:\n%s", pid, stack_of(pid))

    # -- questions

    def answer(self, query: ChildQuery, from_: From) -> None:
        """Answer a query at once."""
        try:
            value: object
            if query.kind == "which_children":
                value = [child.info() for child in self.table()][::-1]
            elif query.kind == "which_child":
                value = self.find(query.child).info()
            elif query.kind == "get_childspec":
                value = self.find(query.child).spec
            else:
                value = self.counts()
        except NotFound as exc:
            from_.resolve_with(FAILED, exc)
        else:
            from_.resolve_with(ANSWERED, value)

    def counts(self) -> ChildCounts:
        """Count the children."""
        specs = active = supervisors = 0
        for child in self.table():
            specs += 1
            shown = child.shown()
            active += shown is not None and shown is not RESTARTING
            supervisors += child.spec.type == "supervisor"
        return ChildCounts(specs, active, supervisors, specs - supervisors)

    def refuse(self, from_: From) -> None:
        """Fail a command that came while stopping."""
        from_.resolve_with(FAILED, ServerExited(self.pid, Shutdown("stopping")))

    def unexpected(self, message: object, from_: From | None) -> None:
        """Log a message a supervisor has no use for, and drop it; a call fails its caller."""
        logger.warning("supervisor %r: unexpected message %s", self.pid, limited_repr(message, 3))
        if isinstance(from_, From):  # a call, and not the sender of something else
            from_.resolve_with(FAILED, TypeError(f"a supervisor has no answer to {limited_repr(message, 3)}"))

    # -- what `system` asks of a loop

    def restarts_of(self, pid: AnyPid) -> int:
        """How often the child whose process this is has been restarted."""
        try:
            return self.find(pid).restarts
        except NotFound:
            return 0

    def show_message(self, message: Any) -> object:
        """Messages to a supervisor are shown as they are."""
        return message

    def state(self) -> object:
        return tuple(child.info() for child in self.table())

    def replace(self, new: Any) -> object:
        raise TypeError("the state of a supervisor cannot be replaced")

    def status(self) -> dict[str, object]:
        return {
            "pid": self.pid,
            "module": type(self).__name__,
            "suspended": self.suspended,
            "queued": len(self.pid.mailbox),
            "parent": self.pid.parent,
            "state": self.state(),
            "log": shown_log(self),
        }
