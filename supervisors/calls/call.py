"""Messages: call and reply, cast, send, receive."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

import attrs
import trio

from supervisors.errors import CallTimeout, MailboxFull, NoProc, ServerExited
from supervisors.processes.call_timeouts import deadline_after
from supervisors.processes.deadlock import begin_wait, check_deadlock
from supervisors.processes.mailbox import CALL, CAST, INFO
from supervisors.processes.pid import AnyPid, Pid, Target, current_process, current_process_var, live, self_
from supervisors.reasons import Reason

from .request_types import Request, UntypedRequest

if TYPE_CHECKING:
    from supervisors.names.registry import Via

R = TypeVar("R")
S = TypeVar("S")

PENDING: Final = 0
ANSWERED: Final = 1
FAILED: Final = 2
ABANDONED: Final = 3


class From:
    """Where the answer to one call goes. Any task may answer it, once, with `reply` or `reply_error`.

    ``caller`` is the calling process, None for a task outside any process. Nothing that comes after the caller gave
    up ever reaches it.
    """

    __slots__ = ("_bucket", "_state", "_value", "_waiter", "caller", "deferred", "server")

    def __init__(self, server: AnyPid, caller: AnyPid | None) -> None:
        self.server = server
        self.caller = caller
        self.deferred = False
        self._state = PENDING
        self._value: Any = None
        self._waiter: trio.lowlevel.Task | Callable[[From], None] | None = None
        """The task that waits, or what a collection wants to be called."""
        self._bucket: dict[From, float] | None = None
        """Where the timers of the node keep this one's deadline."""

    @property
    def pending(self) -> bool:
        """True while somebody waits for the answer."""
        return self._state == PENDING

    @property
    def holds(self) -> bool:
        """True while only the server can end the wait for the answer: one that was put off may come from any task."""
        return self._state == PENDING and not self.deferred

    def __repr__(self) -> str:
        return f"<from {self.caller!r} to {self.server!r}>"

    def resolve_with(self, state: int, value: object) -> None:
        """Settle the slot if it is still pending and wake the one who waits."""
        if self._state != PENDING:
            return
        waiter = self._waiter
        if waiter is not None:
            # first: outside trio's thread this raises, and the call must be as it was
            if isinstance(waiter, trio.lowlevel.Task):
                trio.lowlevel.reschedule(waiter)
            else:
                waiter(self)
            self._waiter = None
        self._state = state
        self._value = value
        self.server._calls.pop(self, None)
        bucket = self._bucket
        if bucket is not None:
            self._bucket = None
            del bucket[self]
            if not bucket and self.server.node.call_timers.exact:
                self.server.node.call_timers.rest()

    def fail_exited(self, reason: Reason) -> None:
        """The server has ended."""
        self.resolve_with(FAILED, ServerExited(self.server, reason))

    def time_out(self) -> None:
        """The time of the call is up: its caller goes on without an answer."""
        self.resolve_with(ABANDONED, None)

    def abandon(self) -> None:
        """Nobody waits any more."""
        self.resolve_with(ABANDONED, None)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._waiter = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def wait_settled(self, timeout: float) -> None:
        """Wait until the slot is settled, at most ``timeout`` seconds. A checkpoint."""
        if self._state != PENDING:
            await trio.lowlevel.checkpoint()
            return
        if self._waiter is not None:
            raise trio.BusyResourceError("something else waits for this answer already")
        if timeout == math.inf:
            self._waiter = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        else:
            with trio.CancelScope(deadline=deadline_after(timeout)):
                self._waiter = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._abort)

    def unwrap(self) -> Any:
        """The answer, or the error it stands for."""
        if self._state == FAILED:
            try:
                raise self._value
            finally:
                del self  # the traceback holds this frame, and this slot the error
        return self._value


@attrs.frozen(eq=False)
class CallMessage:
    """A call as a plain process receives it; answer it with ``reply(message.from_, value)``."""

    request: Any
    from_: From


def reply(from_: From, value: object) -> None:
    """Answer a call. Synchronous, from any task; a second answer and one that comes too late are dropped.

    Another thread goes through ``trio.from_thread.run_sync``: by itself it may get a RuntimeError.
    """
    from_.resolve_with(ANSWERED, value)


def reply_error(from_: From, exc: BaseException) -> None:
    """Make the caller's `call` raise ``exc``; the server lives on. Otherwise like `reply`."""
    from_.resolve_with(FAILED, exc)


@overload
async def call(target: Pid[S], request: Request[R, S], timeout: float = 5.0) -> R: ...
@overload
async def call(target: Via, request: Request[R, Any], timeout: float = 5.0) -> R: ...
@overload
async def call(target: Target, request: UntypedRequest | None, timeout: float = 5.0) -> Any: ...
async def call(target: Target, request: Any, timeout: float = 5.0) -> Any:
    """Send ``request`` and wait for the answer, at most ``timeout`` seconds.

    Always a checkpoint. Cancelled or timed out, the caller gives up: the request may still be handled, its answer is
    dropped. A bounded mailbox that is full is waited for inside the same timeout.

    The answer to a `Request` has the type that the request names; any other object is a request, too, and ``Any`` its
    answer. A call that could never be answered, because its server waits for this very process, is refused with
    Deadlock, unless the circle is closed by something that cannot be seen: a server that put off its answer, trio's own
    events and locks, a wait for any of several requests, a task that is not the main task of its process.

    Raises NoProc, CallTimeout, CallingSelf, Deadlock, ServerExited, and what the server gave to `reply_error`. A
    timeout that is no number of seconds (TypeError, ValueError) sends nothing; one below zero has passed.
    """
    pid = target.resolve()
    if pid is None or pid.mailbox.closed:
        raise NoProc(target)
    mailbox = pid.mailbox
    me = current_process_var.get()
    task = trio.lowlevel.current_task()
    from_ = From(pid, me)
    # only the main task of a process speaks for it; another task of it may wait while the process goes on
    blocks = me is not None and task is me._task
    if me is not None and blocks:
        if pid is me or pid._blocked_on is not None:
            check_deadlock(me, pid)
        me._blocked_on = from_
    try:
        if mailbox.limit is not None and mailbox.is_full():
            left = await _wait_room(target, pid, timeout)
        else:
            left = timeout
        timed = 0 < left < math.inf
        if not timed:
            deadline_after(timeout)  # before anything is sent
        mailbox.put((CALL, request, from_))
        pid._calls[from_] = None
        if timed and pid.node.call_timers.add(from_, left):
            from_._waiter = task
            await trio.lowlevel.wait_task_rescheduled(from_._abort)
        else:
            await from_.wait_settled(left)
    finally:
        if me is not None and blocks:
            me._blocked_on = None
        if from_._state == PENDING:
            from_.abandon()
    if from_._state == ANSWERED:
        return from_._value
    if from_._state == ABANDONED:
        raise CallTimeout(target, timeout)
    try:
        return from_.unwrap()
    finally:
        del from_  # as in unwrap


async def call_system(kind: int, target: Target, request: object, timeout: float) -> Any:
    """A call on the system lane, which overtakes the queue and is answered also by a suspended server."""
    pid = live(target)
    deadline_after(timeout)  # before anything is sent
    from_ = From(pid, current_process())
    me = begin_wait(from_)
    pid.mailbox.put_system((kind, request, from_))
    pid._calls[from_] = None
    try:
        await from_.wait_settled(timeout)
    finally:
        if me is not None:
            me._blocked_on = None
        if from_._state == PENDING:
            from_.abandon()
    if from_._state == ABANDONED:
        raise CallTimeout(target, timeout)
    try:
        return from_.unwrap()
    finally:
        del from_


async def _wait_room(target: Target, pid: AnyPid, timeout: float) -> float:
    """Wait for room; returns what is left of the timeout."""
    deadline = deadline_after(timeout)
    with trio.CancelScope(deadline=deadline) as scope:
        await pid.mailbox.wait_room()
    if scope.cancelled_caught:
        raise CallTimeout(target, timeout)
    if pid.mailbox.closed:  # it, and not whoever may have its name by now
        raise NoProc(pid)
    return max(0.0, deadline - trio.current_time())


@overload
def cast(target: Pid[S], message: Request[Any, S]) -> None: ...
@overload
def cast(target: Via, message: Request[Any, Any]) -> None: ...
@overload
def cast(target: Target, message: UntypedRequest | None) -> None: ...
def cast(target: Target, message: Any) -> None:
    """Send a request that has no answer. Synchronous, never blocks, silent when the target is dead or unknown.

    Raises MailboxFull when the target's mailbox is bounded and full.
    """
    pid = target.resolve()
    if pid is None:
        return
    mailbox = pid.mailbox
    if mailbox.limit is not None and mailbox.is_full():
        raise MailboxFull(target, mailbox.limit)
    mailbox.put((CAST, message, current_process_var.get()))


def send(target: Target, message: object) -> None:
    """Send a plain message: to ``handle_info`` of a server, to `receive` of a plain process. Otherwise like `cast`."""
    pid = target.resolve()
    if pid is None:
        return
    mailbox = pid.mailbox
    if mailbox.limit is not None and mailbox.is_full():
        raise MailboxFull(target, mailbox.limit)
    mailbox.put((INFO, message, current_process_var.get()))


async def receive() -> Any:
    """The next message of this plain process, in order of arrival; a call arrives as `CallMessage`.

    A checkpoint when the mailbox is empty, and now and then when it is not. Cancelling it loses no message.
    """
    kind, payload, from_ = await self_().mailbox.get()
    if kind == CALL:
        return CallMessage(payload, from_)
    return payload
