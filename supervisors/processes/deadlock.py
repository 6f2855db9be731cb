"""Which process waits for which, and the circle that one more wait would close."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import trio

from supervisors.errors import CallingSelf, Deadlock

from .call_timeouts import deadline_after
from .pid import AnyPid, current_process_var

if TYPE_CHECKING:
    from collections.abc import Callable


class Wait(Protocol):
    """What the main task of a process waits for: an answer, a start or an end that only ``server`` can bring about."""

    server: AnyPid

    @property
    def holds(self) -> bool:
        """False as soon as the wait is over, even if the waiting task has not run since, and when others than
        ``server`` can end it as well."""
        ...


class ProcessWait:
    """A task's wait for the start or the end of ``server``, over as soon as ``over(server)``.

    It is itself the watcher that the process is to call then.
    """

    __slots__ = ("_over", "_task", "server")

    def __init__(self, server: AnyPid, over: Callable[[AnyPid], bool]) -> None:
        self.server = server
        self._over = over
        self._task: trio.lowlevel.Task | None = None

    @property
    def holds(self) -> bool:
        """See `Wait`."""
        return not self._over(self.server)

    def __call__(self, pid: AnyPid) -> None:
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    async def wait(self, timeout: float) -> None:
        """Wait for the call, at most ``timeout`` seconds. A checkpoint. Nothing may run between the registration as a
        watcher and this."""
        if timeout == math.inf:  # most waits: without the cost of a scope
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        else:
            with trio.CancelScope(deadline=deadline_after(timeout)):
                self._task = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


def check_deadlock(me: AnyPid, pid: AnyPid) -> None:
    """Refuse that ``me`` waits for ``pid`` when that would never end: CallingSelf, or Deadlock with the whole chain.

    A process waits for at most one other, so a circle is found by following pointers. A circle is refused even when
    a timeout would break it some time.

    Not detected, since nothing says who could end such a wait: calls that their server put off (`NO_REPLY`), waits
    for any of several requests, events, locks and channels of trio, waits of a task that is not the main task of its
    process, and a supervisor that starts or stops a child while that child, by way of others, waits for the
    supervisor. A process that has been cancelled is taken to give up its wait, so a circle through one that clings to
    it behind a shield is not seen either.
    """
    if pid is me:
        raise CallingSelf(me)
    chain = [me, pid]
    # This ends: each wait was checked before it began, and what stops a walk today stops every later one.
    while True:
        wait = pid._blocked_on
        if wait is None or not wait.holds or pid._scope.cancel_called:
            return
        pid = wait.server
        chain.append(pid)
        if pid is me:
            raise Deadlock(chain)


def main_process() -> AnyPid | None:
    """The process whose main task this is. Another task of it may wait while the process goes on."""
    me = current_process_var.get()
    return me if me is not None and me._task is trio.lowlevel.current_task() else None


def begin_wait(wait: Wait) -> AnyPid | None:
    """Note that this process waits from now on. The one returned, if any, has its ``_blocked_on`` set back at the end.

    Raises CallingSelf and Deadlock.
    """
    me = main_process()
    if me is not None:
        check_deadlock(me, wait.server)
        me._blocked_on = wait
    return me
