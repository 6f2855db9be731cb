"""The life of a process: the task that runs it, and the one synchronous path on which it ends."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from traceback import walk_tb
from typing import Any

import trio

from supervisors.errors import NodeStopped
from supervisors.reasons import (
    KILLED,
    NORMAL,
    SHUTDOWN,
    Crashed,
    Killed,
    Normal,
    Reason,
    ReportedExit,
    fatal_part,
    is_abnormal,
    reason_of,
)

from .mailbox import INFO, STOP
from .pid import AnyPid, Pid, Resource, current_node, current_process_var
from .reports import logger, report_crash

DEFAULT_CLEANUP_SECONDS = 5.0
"""What `cleanup_scope` allows outside a process, where nobody sets a kill deadline."""


@trio.lowlevel.enable_ki_protection
async def run_process(pid: AnyPid, body: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
    """The task of a process: nothing leaves it but `FATAL` exceptions, and it always ends in `finish`.

    Protected from KeyboardInterrupt, which trio then gives to the main task: there the block of the node turns it
    into an orderly stop, while in the middle of a handler or of the exit path it would break a promise.
    """
    current_process_var.set(pid)
    pid._task = trio.lowlevel.current_task()
    scope = pid._scope
    reason: Reason = NORMAL
    fatal: BaseException | None = None
    try:
        with scope:
            try:
                if pid._pending_reason is None:
                    await body(*args)
                else:
                    await trio.lowlevel.checkpoint()
            except trio.Cancelled as cancelled:
                _warn_of_masked_error(pid, cancelled)
                raise
        if scope.cancelled_caught:
            reason = SHUTDOWN if pid._pending_reason is None else pid._pending_reason
        elif pid._pending_reason is not None and not isinstance(pid._pending_reason, Killed):
            logger.warning("%r returned although it was told to exit with %r", pid, pid._pending_reason)
    except GeneratorExit:  # pragma: no cover  # only when trio itself is torn down in the middle of a run
        raise  # the whole trio run is gone, there is nobody left to tell
    except BaseException as exc:
        fatal = fatal_part(exc)
        reason = reason_of(exc if fatal is None else fatal)
        if fatal is None and pid.ready and is_abnormal(reason) and not isinstance(exc, ReportedExit):
            report_crash(pid, reason)
    if isinstance(pid._pending_reason, Killed):
        reason = KILLED  # a kill cannot be answered with another reason
    finish(pid, reason)
    if fatal is not None:
        raise fatal
    # the traceback of a crash holds this frame: without this each crash would leave a circle for the collector
    del pid, body, args, scope, reason


def _warn_of_masked_error(pid: AnyPid, cancelled: trio.Cancelled) -> None:
    """``finally: await x`` in a cancelled task replaces the error under way by Cancelled: name it at least."""
    masked = cancelled.__context__
    while isinstance(masked, trio.Cancelled):
        masked = masked.__context__
    # trio makes Cancelled on the stack of whoever cancels, so its context may be an error that the canceller is
    # handling. One of this task's own was caught in a frame through which Cancelled has come as well.
    if (
        isinstance(masked, Exception)
        and masked.__traceback__ is not None
        and (masked.__traceback__.tb_frame in {frame for frame, _ in walk_tb(cancelled.__traceback__)})
    ):
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
        (peer._links or {}).pop(pid, None)
        deliver_exit(peer, pid, reason)
    ready_watcher, pid._ready_watcher = pid._ready_watcher, None
    if ready_watcher is not None:
        ready_watcher(pid)
    watchers, pid._exit_watchers = pid._exit_watchers, None
    for watcher in watchers or ():
        watcher(pid)
    # what a dead pid must not keep alive
    pid._task = None
    pid._loop = None
    pid._started_as = None
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
    if pid._pending_reason is None:
        pid._pending_reason = reason
    pid._scope.cancel()


def request_shutdown(pid: AnyPid, reason: Reason, kill_deadline: float) -> None:
    """Ask the process to end: a server by a message that overtakes its queue, any other by cancellation.

    ``kill_deadline`` (trio time) becomes the deadline of its clean-up scopes; killing it then is the caller's job.
    """
    if pid.mailbox.closed:
        return
    pid._kill_deadline = min(kill_deadline, pid._kill_deadline)  # asked again, or killed already, it gains no time
    for scope in pid._cleanup_scopes or ():
        scope.deadline = pid._kill_deadline
    if pid._stops_by_message and pid.ready:
        pid.mailbox.put_system((STOP, reason, None))
    else:
        cancel_with(pid, reason)


def deliver_exit(pid: AnyPid, sender: AnyPid | None, reason: Reason) -> None:
    """An exit signal from a link or a process: a message to one that traps exits, the end of another."""
    if pid.mailbox.closed:
        return
    if pid._trap_exits:
        from .signals import ExitSignal

        if sender is not None and sender is pid._parent and pid._loop is not None and pid._loop.suspended:
            # suspended it reads nothing else, and shall not outlive its parent
            pid.mailbox.put_system((STOP, reason, None))
            return
        pid.mailbox.put((INFO, ExitSignal(sender, reason), None))
    elif not isinstance(reason, Normal):  # and no ==, which is whatever the class of the reason makes of it
        cancel_with(pid, reason)


@contextmanager
def cleanup_scope() -> Iterator[trio.CancelScope]:
    """A shield for clean-up, owned by the runtime: it holds until the kill deadline of the process and no longer.

    Without a stop under way there is no deadline; one that comes later applies. A kill ends it at once. Outside a
    process it holds for 5 seconds.
    """
    pid = current_process_var.get()
    if pid is None or pid.mailbox.closed:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + DEFAULT_CLEANUP_SECONDS) as scope:
            yield scope
        return
    with trio.CancelScope(shield=True, deadline=pid._kill_deadline) as scope:
        scopes = pid._cleanup_scopes
        if scopes is None:
            scopes = pid._cleanup_scopes = []
        scopes.append(scope)
        try:
            yield scope
        finally:
            scopes.remove(scope)
    if scope.cancelled_caught and trio.current_time() >= pid._kill_deadline:
        pid._pending_reason = KILLED  # it overstayed, whether or not the kill itself comes in time


# -- plain processes --------------------------------------------------------------------------------------------


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
