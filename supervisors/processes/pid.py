"""The pid, and how to find one's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar

import trio

from supervisors.errors import NoProc
from supervisors.reasons import NORMAL, Reason

from .mailbox import Mailbox

if TYPE_CHECKING:
    from supervisors.calls.call import From
    from supervisors.introspection.system import Loop
    from supervisors.nodes.node import Node

    from .deadlock import Wait
    from .signals import MonitorRef

S_co = TypeVar("S_co", covariant=True)


def function_label(function: Callable[..., object]) -> str:
    """A short name for what a process runs."""
    name = getattr(function, "__name__", None)
    return name if isinstance(name, str) else type(getattr(function, "func", function)).__name__


class Resource(Protocol):
    """Something that belongs to a process and is given back the moment it ends: names, groups."""

    def owner_exited(self, pid: Pid[Any]) -> None: ...


class Target(Protocol):
    """What can be called, sent to, monitored: a pid, or a name that is resolved each time it is used."""

    def resolve(self) -> Pid[Any] | None:
        """The process behind it at this moment, or None."""
        ...


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
        "_loop",
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
        started_as: Callable[..., object] | None = None,
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
        self._blocked_on: Wait | None = None
        self._links: dict[Pid[Any], None] | None = None
        self._loop: Loop | None = None
        """The loop of a server or supervisor that is up: what introspection reads without asking it."""
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

    @property
    def started_as(self) -> str:
        """The full name of what the process runs; empty once it has ended."""
        start = self._started_as
        if start is None:
            return ""
        return f"{getattr(start, '__module__', '')}.{getattr(start, '__qualname__', function_label(start))}"

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
        self._loop = None
        self._calls = {}

    def __repr__(self) -> str:
        return "IGNORE"


AnyPid: TypeAlias = Pid[Any]

current_process_var: ContextVar[AnyPid | None] = ContextVar("supervisors_process", default=None)
current_node_var: ContextVar[Node | None] = ContextVar("supervisors_node", default=None)


def current_process() -> AnyPid | None:
    """The process this task belongs to, or None."""
    return current_process_var.get()


def self_() -> AnyPid:
    """The process this task belongs to (also from a task that the process opened). LookupError outside one."""
    pid = current_process_var.get()
    if pid is None:
        raise LookupError("not inside a process; pass the pid explicitly")
    return pid


def current_node() -> Node:
    """The node of this process, or the one whose block this task is in. LookupError when there is none."""
    pid = current_process_var.get()
    if pid is not None:
        return pid.node
    node = current_node_var.get()
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
