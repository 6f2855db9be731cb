"""Processes: the pid, the task that runs it, and the one synchronous path on which it ends."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar

import trio

from ._errors import NodeStopped, NoProc
from ._mailbox import INFO, STOP, Mailbox
from ._reasons import (
    KILLED,
    NORMAL,
    SHUTDOWN,
    Crashed,
    Killed,
    Reason,
    fatal_part,
    is_abnormal,
    reason_of,
)
from ._reports import CrashReport, emit, logger

if TYPE_CHECKING:
    from ._call import From
    from ._node import Node
    from ._signals import MonitorRef

S_co = TypeVar("S_co", covariant=True)

DEFAULT_CLEANUP_SECONDS = 5.0
"""What `cleanup_scope` allows outside a process, where nobody sets a kill deadline."""


class Resource(Protocol):
    """Something that belongs to a process and is given back the moment it ends: names, groups."""

    def owner_exited(self, pid: Pid[Any]) -> None: ...


class Target(Protocol):
    """What can be called, sent to, monitored: a pid, or a name that is resolved each time it is used."""

    def resolve(self) -> Pid[Any] | None: ...


class Pid(Generic[S_co]):
    """One process. Hashable, compared by identity; ``S`` is the class of its server.

    Reading its attributes never blocks. A pid outlives its process and then says why it ended.
    """

    __slots__ = (
        "__weakref__",
        "_blocked_on",
        "_calls",
        "_cleanup_scopes",
        "_exit_watchers",
        "_kill_deadline",
        "_links",
        "_monitored_by",
        "_monitoring",
        "_number",
        "_parent",
        "_pending_reason",
        "_ready_watcher",
        "_resources",
        "_scope",
        "_started_as",
        "_stops_by_message",
        "_task",
        "_trap_exits",
        "exit_reason",
        "ignored",
        "is_supervisor",
        "label",
        "mailbox",
        "node",
        "ready",
        "start_info",
    )

    def __init__(
        self,
        node: Node,
        label: str,
        parent: Pid[Any] | None = None,
        *,
        stops_by_message: bool = False,
        mailbox_limit: int | None = None,
        started_as: str = "",
        is_supervisor: bool = False,
    ) -> None:
        self._number = node.next_number()
        self.label = label
        self.node = node
        self.exit_reason: Reason | None = None
        """Why the process ended; None while it is alive."""
        self.ready = not stops_by_message
        """True once a server's init has returned; at once for a plain process."""
        self.ignored = False
        """True when its init returned ``IGNORE``."""
        self.is_supervisor = is_supervisor
        self.start_info: Any = None
        """What init gave with ``Started(info)``."""
        self.mailbox = Mailbox(mailbox_limit)
        self._parent = parent
        self._stops_by_message = stops_by_message
        self._started_as = started_as
        self._scope = trio.CancelScope(shield=True)
        self._task: trio.lowlevel.Task | None = None
        self._pending_reason: Reason | None = None
        self._trap_exits = False
        self._kill_deadline = math.inf
        # made when first needed, most processes need few of these
        self._calls: dict[From, None] = {}
        self._blocked_on: From | None = None
        self._links: dict[Pid[Any], None] | None = None
        self._monitored_by: dict[MonitorRef, None] | None = None
        self._monitoring: dict[MonitorRef, None] | None = None
        self._resources: dict[Resource, None] | None = None
        self._cleanup_scopes: list[trio.CancelScope] | None = None
        self._exit_watchers: list[Callable[[Pid[Any]], None]] | None = None
        self._ready_watcher: Callable[[Pid[Any]], None] | None = None

    @property
    def alive(self) -> bool:
        """True until the process has ended and all that was its has been released."""
        return not self.mailbox.closed

    @property
    def parent(self) -> Pid[Any] | None:
        """The process that started this one, or its supervisor; None for one started by the node, or dead."""
        return self._parent

    @property
    def ancestors(self) -> tuple[Pid[Any], ...]:
        """Parent, its parent, and so on."""
        found: list[Pid[Any]] = []
        pid = self._parent
        while pid is not None:
            found.append(pid)
            pid = pid._parent
        return tuple(found)

    def resolve(self) -> Pid[Any] | None:
        """Itself: a pid is its own name."""
        return self

    def __repr__(self) -> str:
        return f"<0.{self._number} {self.label}>"


class Ignore(Pid[Any]):
    """The pid of no process: what a start returns when the server's init returned ``IGNORE``."""

    __slots__ = ()

    def __init__(self) -> None:
        self._number = 0
        self.label = "ignore"
        self.exit_reason = NORMAL
        self.ready = False
        self.ignored = True
        self.is_supervisor = False
        self.start_info = None
        self.mailbox = Mailbox()
        self.mailbox.close()
        self._parent = None
        self._links = None
        self._calls = {}

    def __repr__(self) -> str:
        return "IGNORE"


AnyPid: TypeAlias = Pid[Any]

_current_process: ContextVar[AnyPid | None] = ContextVar("supervisors_process", default=None)
_current_node: ContextVar[Node | None] = ContextVar("supervisors_node", default=None)


def current_process() -> AnyPid | None:
    """The process this task belongs to, or None."""
    return _current_process.get()


def self_() -> AnyPid:
    """The process this task belongs to (also from a task that the process opened). LookupError outside one."""
    pid = _current_process.get()
    if pid is None:
        raise LookupError("not inside a process; pass the pid explicitly")
    return pid


def current_node() -> Node:
    """The node of this process, or the one whose block this task is in. LookupError when there is none."""
    pid = _current_process.get()
    if pid is not None:
        return pid.node
    node = _current_node.get()
    if node is None:
        raise LookupError("no node here; use `async with open_node() as node` and node.start or node.spawn")
    return node


def whereis(target: Target) -> AnyPid | None:
    """The live process behind a pid or a name, or None."""
    pid = target.resolve()
    return pid if pid is not None and not pid.mailbox.closed else None


def live(target: Target) -> AnyPid:
    """Like `whereis`, but raises NoProc."""
    pid = target.resolve()
    if pid is None or pid.mailbox.closed:
        raise NoProc(target)
    return pid


@trio.lowlevel.enable_ki_protection
async def run_process(pid: AnyPid, body: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
    """The task of a process: nothing leaves it but `FATAL` exceptions, and it always ends in `finish`.

    Protected from KeyboardInterrupt, which trio then gives to the main task: there the block of the node turns it
    into an orderly stop, while in the middle of a handler or of the exit path it would break a promise.
    """
    _current_process.set(pid)
    pid._task = trio.lowlevel.current_task()
    scope = pid._scope
    reason: Reason = NORMAL
    fatal: BaseException | None = None
    try:
        with scope:
            try:
                if not scope.cancel_called:
                    await body(*args)
                else:
                    await trio.lowlevel.checkpoint()
            except trio.Cancelled as cancelled:
                _warn_of_masked_error(pid, cancelled)
                raise
        if scope.cancelled_caught:
            reason = SHUTDOWN if pid._pending_reason is None else pid._pending_reason
        elif scope.cancel_called and not isinstance(pid._pending_reason, Killed):
            logger.warning("%r returned although it was told to exit with %r", pid, pid._pending_reason)
    except GeneratorExit:
        raise  # the whole trio run is gone, there is nobody left to tell
    except BaseException as exc:
        fatal = fatal_part(exc)
        reason = reason_of(exc if fatal is None else fatal)
        if fatal is None and pid.ready and is_abnormal(reason) and not getattr(exc, "_reported", False):
            report_crash(pid, reason)
    if isinstance(pid._pending_reason, Killed):
        reason = KILLED  # a kill cannot be answered with another reason
    finish(pid, reason)
    if fatal is not None:
        raise fatal


def report_crash(
    pid: AnyPid,
    reason: Reason,
    last_message: object = None,
    state: object = None,
    client: AnyPid | None = None,
) -> None:
    """Log a crash and give it to the hooks."""
    emit(
        pid.node,
        CrashReport(
            pid,
            reason,
            last_message,
            state,
            client,
            pid.ancestors,
            tuple(pid._links or ()),
            pid._started_as,
        ),
    )


def _warn_of_masked_error(pid: AnyPid, cancelled: trio.Cancelled) -> None:
    """``finally: await x`` in a cancelled task replaces the error under way by Cancelled: name it at least."""
    masked = cancelled.__context__
    while isinstance(masked, trio.Cancelled):
        masked = masked.__context__
    if isinstance(masked, Exception):
        logger.warning("cancellation of %r masked an error", pid, exc_info=masked, extra={"masked": masked})


def finish(pid: AnyPid, reason: Reason) -> None:
    """End of a process. Synchronous, so nobody can see a half of it, and in this order.

    Names and groups are free before any DOWN or EXIT tells of the end; callers fail before monitors and links hear
    of it; whoever started the process is told last.
    """
    pid.exit_reason = reason
    pid.mailbox.close()
    resources, pid._resources = pid._resources, None
    for resource in resources or ():
        resource.owner_exited(pid)
    calls, pid._calls = pid._calls, {}
    for from_ in calls:
        from_.fail_exited(reason)
    watchers_of_down, pid._monitored_by = pid._monitored_by, None
    for ref in watchers_of_down or ():
        ref.deliver(reason)
    monitoring, pid._monitoring = pid._monitoring, None
    for ref in monitoring or ():
        ref.forget()
    links, pid._links = pid._links, None
    for peer in links or ():
        if peer._links is not None:
            peer._links.pop(pid, None)
        deliver_exit(peer, pid, reason)
    ready_watcher, pid._ready_watcher = pid._ready_watcher, None
    if ready_watcher is not None:
        ready_watcher(pid)
    watchers, pid._exit_watchers = pid._exit_watchers, None
    for watcher in watchers or ():
        watcher(pid)
    # what a dead pid must not keep alive
    pid._task = None
    pid._parent = None
    pid._cleanup_scopes = None


def mark_ready(pid: AnyPid) -> None:
    """Init is over: tell whoever started the process."""
    pid.ready = True
    watcher, pid._ready_watcher = pid._ready_watcher, None
    if watcher is not None:
        watcher(pid)


def watch_exit(pid: AnyPid, watcher: Callable[[AnyPid], None]) -> None:
    """Call ``watcher(pid)`` synchronously when the process ends; at once when it has."""
    if pid.mailbox.closed:
        watcher(pid)
        return
    if pid._exit_watchers is None:
        pid._exit_watchers = []
    pid._exit_watchers.append(watcher)


def hold(pid: AnyPid, resource: Resource) -> None:
    """Give ``resource`` back when the process ends."""
    if pid._resources is None:
        pid._resources = {}
    pid._resources[resource] = None


# -- ends from outside ------------------------------------------------------------------------------------------


def kill(pid: AnyPid) -> None:
    """Cancel the process with everything in it, clean-up included. Synchronous; it ends at its next checkpoint."""
    if pid.mailbox.closed:
        return
    pid._pending_reason = KILLED
    pid._kill_deadline = -math.inf
    pid._scope.cancel()
    for scope in pid._cleanup_scopes or ():
        scope.cancel()


def cancel_with(pid: AnyPid, reason: Reason) -> None:
    """Cancel the process with a reason; the first reason stays."""
    if pid.mailbox.closed:
        return
    if pid._pending_reason is None:
        pid._pending_reason = reason
    pid._scope.cancel()


def request_shutdown(pid: AnyPid, reason: Reason, kill_deadline: float) -> None:
    """Ask the process to end: a server by a message that overtakes its queue, any other by cancellation.

    ``kill_deadline`` (trio time) becomes the deadline of its clean-up scopes; killing it then is the caller's job.
    """
    if pid.mailbox.closed:
        return
    pid._kill_deadline = kill_deadline
    for scope in pid._cleanup_scopes or ():
        scope.deadline = kill_deadline
    if pid._stops_by_message and pid.ready:
        pid.mailbox.put_system((STOP, reason, None))
    else:
        cancel_with(pid, reason)


def deliver_exit(pid: AnyPid, sender: AnyPid | None, reason: Reason) -> None:
    """An exit signal from a link or a process: a message to one that traps exits, the end of another."""
    if pid.mailbox.closed:
        return
    if pid._trap_exits:
        from ._signals import ExitSignal

        pid.mailbox.put((INFO, ExitSignal(sender, reason), None))
    elif reason != NORMAL:
        cancel_with(pid, reason)


@contextmanager
def cleanup_scope() -> Iterator[trio.CancelScope]:
    """A shield for clean-up, owned by the runtime: it holds until the kill deadline of the process and no longer.

    Without a stop under way there is no deadline; one that comes later applies. A kill ends it at once. Outside a
    process it holds for 5 seconds.
    """
    pid = _current_process.get()
    if pid is None or pid.mailbox.closed:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + DEFAULT_CLEANUP_SECONDS) as scope:
            yield scope
        return
    with trio.CancelScope(shield=True, deadline=pid._kill_deadline) as scope:
        if pid._cleanup_scopes is None:
            pid._cleanup_scopes = []
        pid._cleanup_scopes.append(scope)
        try:
            yield scope
        finally:
            if pid._cleanup_scopes is not None:
                pid._cleanup_scopes.remove(scope)
    if scope.cancelled_caught and trio.current_time() >= pid._kill_deadline:
        pid._pending_reason = KILLED  # it overstayed, whether or not the kill itself comes in time


# -- plain processes --------------------------------------------------------------------------------------------


def function_label(function: Callable[..., object]) -> str:
    """A short name for what a process runs."""
    name = getattr(function, "__name__", None)
    return name if isinstance(name, str) else type(getattr(function, "func", function)).__name__


def launch(
    nursery: trio.Nursery | None, pid: AnyPid, body: Callable[..., Awaitable[object]], args: tuple[Any, ...]
) -> None:
    """Start the task of a new process in ``nursery``. Synchronous."""
    if nursery is None:
        finish(pid, Crashed(NodeStopped(pid.node.label)))
        raise NodeStopped(pid.node.label)
    try:
        nursery.start_soon(run_process, pid, body, args, name=pid.label)
    except BaseException as exc:
        finish(pid, Crashed(exc))  # it will never run: the nursery has closed
        raise


def spawn(
    function: Callable[..., Awaitable[object]],
    *args: object,
    label: str | None = None,
) -> Pid[Any]:
    """Start ``await function(*args)`` as a process of the current node. Synchronous; it runs a moment later.

    Nobody restarts it; the node stops it when its block ends. From inside a process that process is its parent.
    """
    return current_node().spawn(function, *args, label=label)
