"""A snapshot of the tree of processes: it asks nobody, so that a process that hangs is seen too."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any, Final, Literal, TypeAlias

import attrs

from supervisors.errors import NotFound
from supervisors.nodes.node import Node
from supervisors.processes.pid import AnyPid, Pid, Target, current_node, live
from supervisors.servers.behaviour import Behaviour

from .child_spec import ChildSpec
from .supervision_loop import Child, SupervisionLoop

ProcessType: TypeAlias = Literal["node", "supervisor", "server", "process"]
ProcessStatus: TypeAlias = Literal["starting", "running", "waiting", "suspended", "stopping", "restarting", "stopped"]

MOST_LINKS: Final = 4
"""How many of a process's links its line in the text names."""


@attrs.frozen
class ProcessInfo:
    """One process of a snapshot, or a child that has none at the moment.

    ``id`` is the child's id under its supervisor, elsewhere the label. ``status`` is ``waiting`` for a process that
    waits for another one, namely ``waiting_for``; it is ``stopped`` for a child whose spec is kept without a process.
    ``idle`` is True while it waits for its next message: one that is neither idle nor waiting is in a handler, or
    hangs there. ``handled`` counts the messages it has taken, system messages included, ``restarts`` how often its
    supervisor has restarted it. A supervisor's ``children`` stand in start order, what else it started after them.
    """

    id: Hashable
    pid: Pid[Any] | None
    label: str
    type: ProcessType
    status: ProcessStatus
    waiting_for: Pid[Any] | None = None
    idle: bool = False
    queue_length: int = 0
    handled: int = 0
    restarts: int = 0
    links: tuple[Pid[Any], ...] = ()
    children: tuple[ProcessInfo, ...] = ()

    def walk(self) -> Iterator[ProcessInfo]:
        """This one and all below it, each before its children."""
        todo: list[ProcessInfo] = [self]
        while todo:
            info = todo.pop()
            yield info
            todo.extend(reversed(info.children))

    def as_dict(self) -> dict[str, Any]:
        """The snapshot as values that JSON knows: pids and ids that are no strings or numbers by their ``repr``."""
        root = self._fields()
        todo: list[tuple[ProcessInfo, dict[str, Any]]] = [(self, root)]
        while todo:
            info, made = todo.pop()
            made["children"] = children = [child._fields() for child in info.children]
            todo.extend(zip(info.children, children, strict=True))
        return root

    def _fields(self) -> dict[str, Any]:
        return {
            "id": self.id if isinstance(self.id, (str, int, float)) else repr(self.id),
            "pid": None if self.pid is None else repr(self.pid),
            "label": self.label,
            "type": self.type,
            "status": self.status,
            "waiting_for": None if self.waiting_for is None else repr(self.waiting_for),
            "idle": self.idle,
            "queue_length": self.queue_length,
            "handled": self.handled,
            "restarts": self.restarts,
            "links": [repr(pid) for pid in self.links],
        }


def tree(root: Node | Target | None = None) -> ProcessInfo:
    """The processes of a node (the current one by default), or one process with all below it.

    Synchronous, sends nothing to anyone, O(number of processes). Processes that no supervisor has stand under the
    process that started them, or under the node when that has ended. NoProc for a dead or unknown process.
    """
    if root is None:
        root = current_node()
    if isinstance(root, Node):
        return _build(root, _Place(root.label, None))
    pid = live(root)
    child = _line_of(pid)
    return _build(pid.node, _Place(pid.label if child is None else child.spec.id, pid, child))


@attrs.frozen(eq=False)
class _Place:
    """A process, or a child without one, before its children are known. Without both it is the node."""

    id: Hashable
    pid: AnyPid | None
    child: Child | None = None


def _build(node: Node, root: _Place) -> ProcessInfo:
    """Down the tree for the places, up again for the values; no recursion, since trees may be deep."""
    started: dict[AnyPid | None, list[AnyPid]] = {}
    for pid in node.processes:
        parent = pid.parent
        started.setdefault(parent if parent is not None and parent.alive else None, []).append(pid)
    places = [root]
    parents = [-1]
    for index, place in enumerate(places):  # grows meanwhile
        below = _places_below(place, started)
        places += below
        parents += [index] * len(below)
    children: list[list[ProcessInfo]] = [[] for _ in places]
    for index in range(len(places) - 1, 0, -1):
        children[parents[index]].append(_info(node, places[index], children[index]))
    return _info(node, root, children[0])


def _places_below(place: _Place, started: dict[AnyPid | None, list[AnyPid]]) -> list[_Place]:
    below: list[_Place] = []
    loop = None if place.pid is None else place.pid._loop
    if isinstance(loop, SupervisionLoop):
        below = [_Place(child.spec.id, child.process, child) for child in loop.table()]
    if place.child is None or place.pid is not None:
        below += [_Place(pid.label, pid) for pid in started.get(place.pid, ())]
    return below


def _info(node: Node, place: _Place, children_reversed: list[ProcessInfo]) -> ProcessInfo:
    pid, child = place.pid, place.child
    children = tuple(reversed(children_reversed))
    if pid is None and child is None:
        return ProcessInfo(
            node.label, None, node.label, "node", "stopped" if node.nursery is None else "running", children=children
        )
    if pid is None:
        assert child is not None
        status: ProcessStatus = "restarting" if child.restarting else "stopped"
        label = str(child.spec.id) if child.spec.label is None else child.spec.label
        return ProcessInfo(place.id, None, label, _type_of(child.spec), status, restarts=child.restarts)
    waiting_for = _waiting_for(pid)
    return ProcessInfo(
        place.id,
        pid,
        pid.label,
        "supervisor" if pid.is_supervisor else "server" if pid._stops_by_message else "process",
        _status(pid, child, waiting_for),
        waiting_for,
        pid.mailbox._reader is not None,
        len(pid.mailbox),
        pid.mailbox.handled,
        0 if child is None else child.restarts,
        tuple(pid._links or ()),
        children,
    )


def _status(pid: AnyPid, child: Child | None, waiting_for: AnyPid | None) -> ProcessStatus:
    loop = pid._loop
    if child is not None and child.restarting:
        return "restarting"
    if not pid.alive:
        return "stopped"
    if (child is not None and child.stopping) or pid._scope.cancel_called or (loop is not None and loop.stopping):
        return "stopping"
    if not pid.ready:
        return "starting"
    if loop is not None and loop.suspended:
        return "suspended"
    return "running" if waiting_for is None else "waiting"


def _waiting_for(pid: AnyPid) -> AnyPid | None:
    """Whom a process waits for: the one it calls or starts; of a supervisor, the child it starts."""
    if pid._blocked_on is not None:
        return pid._blocked_on.server
    waits_for: AnyPid | None = getattr(pid._loop, "waits_for", None)
    return waits_for


def _line_of(pid: AnyPid) -> Child | None:
    """The line of a process in the table of its supervisor."""
    loop = None if pid.parent is None else pid.parent._loop
    if not isinstance(loop, SupervisionLoop):
        return None
    try:
        return loop.find(pid)
    except NotFound:
        return None


def _type_of(spec: ChildSpec) -> ProcessType:
    start = spec.start[0]
    if spec.type == "supervisor":
        return "supervisor"
    return "server" if isinstance(start, type) and issubclass(start, Behaviour) else "process"


def format_tree(info: ProcessInfo, max_children: int | None = None) -> str:
    """The snapshot as text, a process a line. Of more than ``max_children`` siblings only the first are shown."""
    lines = []
    todo: list[tuple[str, str, ProcessInfo | int]] = [("", "", info)]
    while todo:
        first, rest, entry = todo.pop()
        if isinstance(entry, int):
            lines.append(f"{first}and {entry} more")
            continue
        lines.append(first + describe(entry))
        shown: list[ProcessInfo | int] = [*entry.children[:max_children]]
        if len(shown) < len(entry.children):
            shown.append(len(entry.children) - len(shown))
        below: list[tuple[str, str, ProcessInfo | int]] = [(f"{rest}├── ", f"{rest}│   ", child) for child in shown]
        if below:
            below[-1] = (f"{rest}└── ", f"{rest}    ", shown[-1])
        todo += reversed(below)
    return "\n".join(lines)


def describe(info: ProcessInfo) -> str:
    """One line: who it is, what it is, how it is, and what of the rest is not zero."""
    name = str(info.id) if info.pid is None else repr(info.pid)
    if info.pid is not None and str(info.id) != info.label:
        name = f"{info.id} {name}"
    facts = [info.type, info.status if info.waiting_for is None else f"{info.status} for {info.waiting_for!r}"]
    counted = (("queue", info.queue_length), ("handled", info.handled), ("restarts", info.restarts))
    facts += [f"{word} {count}" for word, count in counted if count]
    if info.links:
        more = f" and {len(info.links) - MOST_LINKS} more" if len(info.links) > MOST_LINKS else ""
        facts.append(f"links {' '.join(map(repr, info.links[:MOST_LINKS]))}{more}")
    return f"{name}  {', '.join(facts)}"
