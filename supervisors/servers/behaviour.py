"""What all behaviours share: how one is started."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, ClassVar, Final, Literal, TypeVar

import trio

from supervisors.errors import AlreadyRegistered, AlreadyStarted, NodeStopped, StartFailed, StartTimeout
from supervisors.names.registry import Registry, Via
from supervisors.processes.call_timeouts import deadline_after
from supervisors.processes.deadlock import ProcessWait, begin_wait
from supervisors.processes.pid import AnyPid, Ignore, Pid, current_node, current_process, function_label, self_
from supervisors.processes.process import cancel_with, kill, launch
from supervisors.processes.signals import MonitorRef, link_pair, monitor_for
from supervisors.reasons import NO_PROC, NORMAL, SHUTDOWN, cause_of

T = TypeVar("T")

IGNORE: Final = Ignore()
"""Return it from ``init`` to have no process at all; a start then returns it too. As a pid it is dead from birth."""


class Behaviour:
    """Base of `GenServer`, `GenStatem`, `Supervisor` and `DynamicSupervisor`; not meant for other subclasses."""

    mailbox_limit: ClassVar[int | None] = None
    """Most queued calls, casts and messages; None means unbounded."""

    child_type: ClassVar[Literal["worker", "supervisor"]] = "worker"

    @classmethod
    async def run_behaviour(cls, pid: AnyPid, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The body of the process."""
        raise NotImplementedError


def prepare(
    node: Any,
    start: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    parent: AnyPid | None,
    name: Hashable | Via | None = None,
    label: str | None = None,
    registry: Registry | None = None,
) -> tuple[AnyPid, Callable[..., Awaitable[object]], tuple[Any, ...]]:
    """Make the pid of a new process and take its name; returns (pid, body, arguments of the body). Synchronous.

    ``start`` is a behaviour class or an async function. AlreadyStarted when the name is taken.
    """
    behaviour = isinstance(start, type) and issubclass(start, Behaviour)
    if label is None:
        label = function_label(start) if name is None else str(name.key if isinstance(name, Via) else name)
    pid: AnyPid = Pid(
        node,
        label,
        parent,
        stops_by_message=behaviour,
        mailbox_limit=start.mailbox_limit if behaviour else None,  # type: ignore[attr-defined]
        is_supervisor=behaviour and start.child_type == "supervisor",  # type: ignore[attr-defined]
        started_as=start,
    )
    if name is not None:
        via = name if isinstance(name, Via) else Via(node.registry if registry is None else registry, name)
        try:
            via.registry.register(via.key, pid)
        except AlreadyRegistered as taken:
            pid.exit_reason = NORMAL
            pid.mailbox.close()
            raise AlreadyStarted(taken.pid) from None
    if behaviour:
        return pid, start.run_behaviour, (pid, args, kwargs)  # type: ignore[attr-defined]
    if kwargs:
        return pid, _call_with_keywords, (start, args, kwargs)
    return pid, start, args


async def _call_with_keywords(
    function: Callable[..., Awaitable[object]], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    await function(*args, **kwargs)


def abort_start(pid: AnyPid) -> None:
    """End a process that is not ready and free its names at once, so that a start that failed leaves none.

    It is killed, but for a supervisor, which stops the children it has started in good order.
    """
    if pid.is_supervisor:
        cancel_with(pid, SHUTDOWN)
    else:
        kill(pid)
    resources, pid._resources = pid._resources, None
    for resource in resources or ():
        resource.owner_exited(pid)


def started_or_ended(pid: AnyPid) -> bool:
    """True when nobody has to wait any more for this process to start."""
    return pid.ready or pid.mailbox.closed


async def start_in(
    nursery: trio.Nursery | None,
    node: Any,
    start: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    name: Hashable | Via | None,
    label: str | None,
    timeout: float,
) -> AnyPid:
    """Start a process and wait until its init has returned. A checkpoint.

    Cancelled or out of time, the new process is killed and its name is free. Raises AlreadyStarted, StartFailed (from
    the exception that left init, if any), StartTimeout, NodeStopped. Returns IGNORE when init did.
    """
    if nursery is None:
        raise NodeStopped(node.label)
    deadline_after(timeout)  # before anything is begun
    me = current_process()
    pid, body, body_args = prepare(node, start, args, kwargs, parent=me, name=name, label=label)
    node.adopt(pid)
    launch(nursery, pid, body, body_args)
    if pid.ready:
        await trio.lowlevel.checkpoint()
        return pid
    wait = pid._ready_watcher = ProcessWait(pid, started_or_ended)
    # so that an init that calls its starter is told of the deadlock
    waiting = begin_wait(wait)
    try:
        await wait.wait(timeout)
    finally:
        if waiting is not None:
            waiting._blocked_on = None
        if not pid.ready and pid.alive:
            abort_start(pid)
    if pid.ready:
        return pid
    if pid.ignored:
        return IGNORE
    if not pid.alive:
        raise StartFailed(pid.exit_reason) from cause_of(pid.exit_reason)
    raise StartTimeout(timeout)


async def start(
    server: type[T],
    *args: Any,
    name: Hashable | Via | None = None,
    label: str | None = None,
    timeout: float = math.inf,
    **kwargs: Any,
) -> Pid[T]:
    """Start a behaviour on the current node and wait until it is ready; see `Node.start`."""
    node = current_node()
    return await node.start(server, *args, name=name, label=label, timeout=timeout, **kwargs)


async def start_link(
    server: type[T],
    *args: Any,
    name: Hashable | Via | None = None,
    label: str | None = None,
    timeout: float = math.inf,
    **kwargs: Any,
) -> Pid[T]:
    """`start` and `link` in one step. Only inside a process. A failed start is raised and sends no exit signal."""
    me = self_()
    node = current_node()
    pid = await start_in(node.nursery, node, server, args, kwargs, name=name, label=label, timeout=timeout)
    if pid is not IGNORE:
        link_pair(me, pid, pid.exit_reason)  # it may have come up and ended before this task ran again
    return pid


async def start_monitor(
    server: type[T],
    *args: Any,
    name: Hashable | Via | None = None,
    label: str | None = None,
    timeout: float = math.inf,
    **kwargs: Any,
) -> tuple[Pid[T], MonitorRef]:
    """`start` and `monitor` in one step. Only inside a process."""
    me = self_()
    pid = await start(server, *args, name=name, label=label, timeout=timeout, **kwargs)
    return pid, monitor_for(me, pid, NO_PROC if pid is IGNORE else pid.exit_reason)
