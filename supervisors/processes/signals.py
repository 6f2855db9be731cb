"""Monitors, links, exit signals."""

from __future__ import annotations

import math
from typing import Any

import attrs
import trio

from supervisors.errors import CallingSelf, CallTimeout, NoProc, NotOwner, ServerExited
from supervisors.reasons import NO_PROC, NORMAL, Exit, Killed, Reason

from .deadlock import ProcessWait, begin_wait, check_deadlock, main_process
from .mailbox import INFO, STOP
from .pid import AnyPid, Pid, Target, current_process, self_
from .process import cancel_with, deliver_exit, kill, request_shutdown, spawn, watch_exit


class MonitorRef:
    """One monitor. Compared by identity; ``target`` is the pid or the name that was asked for."""

    __slots__ = ("_delivered", "_owner", "_watched", "target")

    def __init__(self, owner: AnyPid, target: Target, watched: AnyPid | None) -> None:
        self.target = target
        self._owner = owner
        self._watched = watched
        self._delivered = False

    def __repr__(self) -> str:
        return f"<monitor of {self.target!r} by {self._owner!r}>"

    def deliver(self, reason: Reason) -> None:
        """Send the one Down of this monitor."""
        if self._delivered:
            return
        self._delivered = True
        self._watched = None
        if self._owner._monitoring is not None:
            self._owner._monitoring.pop(self, None)
        self._owner.mailbox.put((INFO, Down(self, self.target, reason), None))

    def forget(self) -> None:
        """No Down any more."""
        watched, self._watched = self._watched, None
        self._delivered = True
        if watched is not None and watched._monitored_by is not None:
            watched._monitored_by.pop(self, None)


@attrs.frozen
class Down:
    """A monitored process ended. ``pid`` is what was monitored: the pid, or the name when it was by name."""

    ref: MonitorRef
    pid: Target
    reason: Reason


@attrs.frozen
class ExitSignal:
    """A linked process ended, or someone asked this one to; only to those that trap exits.

    ``pid`` is None when the signal came from a task outside any process.
    """

    pid: Pid[Any] | None
    reason: Reason


def monitor(target: Target) -> MonitorRef:
    """Have exactly one `Down` sent to this process when ``target`` ends; at once when it is dead or unknown.

    Synchronous; LookupError outside a process.
    """
    return monitor_for(self_(), target)


def monitor_for(owner: AnyPid, target: Target, ended_with: Reason = NO_PROC) -> MonitorRef:
    """`monitor` for ``owner``; ``ended_with`` is the reason given when the process has ended already."""
    pid = target.resolve()
    ref = MonitorRef(owner, target, pid)
    if pid is None or pid.mailbox.closed:
        ref.deliver(ended_with)
        return ref
    if pid._monitored_by is None:
        pid._monitored_by = {}
    pid._monitored_by[ref] = None
    if owner._monitoring is None:
        owner._monitoring = {}
    owner._monitoring[ref] = None
    return ref


def demonitor(ref: MonitorRef, flush: bool = False) -> None:
    """Take a monitor off. ``flush`` also removes a `Down` that waits in the mailbox. A used up ref is a no-op.

    Synchronous. NotOwner when another process made the ref.
    """
    owner = self_()
    if ref._owner is not owner:
        raise NotOwner(ref)
    ref.forget()
    if owner._monitoring is not None:
        owner._monitoring.pop(ref, None)
    if flush:
        owner.mailbox.remove(lambda item: item[0] == INFO and isinstance(item[1], Down) and item[1].ref is ref)


def link(pid: Pid[Any]) -> None:
    """Tie this process and ``pid`` together: when one ends abnormally, so does the other. Symmetric, idempotent.

    Linking to a dead process gives the exit signal noproc at once. Synchronous; LookupError outside a process.
    """
    link_pair(self_(), pid)


def link_pair(me: AnyPid, pid: AnyPid, ended_with: Reason = NO_PROC) -> None:
    """Link two processes; ``ended_with`` is the exit signal of one that has ended already."""
    if me is pid:
        return
    if pid.mailbox.closed:
        deliver_exit(me, pid, ended_with)
        return
    for one, other in ((me, pid), (pid, me)):
        if one._links is None:
            one._links = {}
        one._links[other] = None


def unlink(pid: Pid[Any]) -> None:
    """Undo `link`. An exit signal of ``pid`` still waiting in the mailbox is removed. Synchronous."""
    me = self_()
    for one, other in ((me, pid), (pid, me)):
        if one._links is not None:
            one._links.pop(other, None)
    me.mailbox.remove(lambda item: item[0] == INFO and isinstance(item[1], ExitSignal) and item[1].pid is pid)


def trap_exits(flag: bool = True) -> bool:
    """Have exit signals delivered as `ExitSignal` messages; returns the setting before. Synchronous."""
    me = self_()
    before, me._trap_exits = me._trap_exits, flag
    return before


def exit_(pid: Pid[Any], reason: Reason) -> None:
    """Send an exit signal. Synchronous; the process ends at its next checkpoint.

    ``Normal`` to another process is ignored (a message when it traps exits); ``Killed`` cannot be trapped. A process
    that signals itself ends here and now, by an `Exit` exception.
    """
    me = current_process()
    if isinstance(reason, Killed):
        kill(pid)
    elif me is pid and not pid._trap_exits and trio.lowlevel.current_task() is pid._task:
        raise Exit(reason)
    elif me is pid and not pid._trap_exits:
        cancel_with(pid, reason)
    else:
        deliver_exit(pid, me, reason)


def _ended(pid: AnyPid) -> bool:
    return pid.mailbox.closed


async def wait_down(target: Target, timeout: float = math.inf) -> Reason:
    """Wait, in any task, until the process has ended; returns its exit reason (noproc for an unknown name).

    Always a checkpoint. Cancelling the wait changes nothing for the process. CallTimeout after ``timeout`` seconds.
    CallingSelf and Deadlock as in `call`: a process that waits for this one will not end.
    """
    pid = target.resolve()
    if pid is None:
        await trio.lowlevel.checkpoint()
        return NO_PROC
    if pid.mailbox.closed:
        await trio.lowlevel.checkpoint()
        return pid.exit_reason
    wait = ProcessWait(pid, _ended)
    me = begin_wait(wait)
    watch_exit(pid, wait)
    try:
        await wait.wait(timeout)
    finally:
        if me is not None:
            me._blocked_on = None
        if pid._exit_watchers is not None:
            pid._exit_watchers.remove(wait)
    if not pid.mailbox.closed:
        raise CallTimeout(target, timeout)
    return pid.exit_reason


async def stop(target: Target, reason: Reason = NORMAL, timeout: float = math.inf) -> None:
    """Have a server run its ``terminate`` and end with ``reason``, or cancel a plain process; wait for the end.

    A checkpoint. NoProc when there is none, CallingSelf, Deadlock when the server waits for this process, CallTimeout
    (it may still end later), and ServerExited when it ended for another reason than asked. A timeout that is no time
    (TypeError, ValueError), CallingSelf and Deadlock leave it alone.
    """
    if not timeout >= 0:
        raise ValueError(f"timeout must be a number of seconds >= 0, not {timeout!r}")
    pid = target.resolve()
    if pid is None or pid.mailbox.closed:
        raise NoProc(target)
    me = main_process()
    if me is pid:
        raise CallingSelf(pid)
    if pid._stops_by_message and pid.ready:
        if me is not None:
            check_deadlock(me, pid)
        pid.mailbox.put_system((STOP, reason, None))
    else:
        request_shutdown(pid, reason, math.inf)
    ended_with = await wait_down(pid, timeout)
    if ended_with is not reason and ended_with != reason:
        raise ServerExited(target, ended_with)


def spawn_link(function: Any, *args: object, label: str | None = None) -> Pid[Any]:
    """`spawn` and `link` in one step. Only inside a process."""
    me = self_()
    pid = spawn(function, *args, label=label)
    link_pair(me, pid)
    return pid


def spawn_monitor(function: Any, *args: object, label: str | None = None) -> tuple[Pid[Any], MonitorRef]:
    """`spawn` and `monitor` in one step. Only inside a process."""
    self_()
    pid = spawn(function, *args, label=label)
    return pid, monitor(pid)
