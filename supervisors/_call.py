"""Messages: call and reply, cast, send, receive, requests that are waited for later."""

from __future__ import annotations

import math
from typing import Any, Final

import attrs
import trio

from ._errors import CallingSelf, CallTimeout, Deadlock, MailboxFull, NoProc, ServerExited
from ._mailbox import CALL, CAST, INFO
from ._pid import AnyPid, Target, current_process, current_process_var, live, self_
from ._reasons import Reason

PENDING: Final = 0
ANSWERED: Final = 1
FAILED: Final = 2
ABANDONED: Final = 3


class From:
    """Where the answer to one call goes. Any task may answer it, once, with `reply` or `reply_error`.

    ``caller`` is the calling process, None for a task outside any process. Nothing that comes after the caller gave
    up ever reaches it.
    """

    __slots__ = ("_bucket", "_state", "_task", "_value", "caller", "deferred", "server")

    def __init__(self, server: AnyPid, caller: AnyPid | None) -> None:
        self.server = server
        self.caller = caller
        self.deferred = False
        self._state = PENDING
        self._value: Any = None
        self._task: trio.lowlevel.Task | None = None
        self._bucket: dict[From, float] | None = None
        """Where the timers of the node keep this one's deadline."""

    @property
    def pending(self) -> bool:
        """True while somebody waits for the answer."""
        return self._state == PENDING

    def __repr__(self) -> str:
        return f"<from {self.caller!r} to {self.server!r}>"

    def resolve_with(self, state: int, value: object) -> None:
        """Settle the slot if it is still pending and wake the one who waits."""
        if self._state != PENDING:
            return
        self._state = state
        self._value = value
        self.server._calls.pop(self, None)
        if self._bucket is not None:
            self._leave_bucket(self._bucket)
        task = self._task
        if task is not None:
            self._task = None
            trio.lowlevel.reschedule(task)

    def _leave_bucket(self, bucket: dict[From, float]) -> None:
        """No deadline any more; a dict without it keeps nothing of this call."""
        self._bucket = None
        del bucket[self]
        if not bucket:
            timers = self.server.node.call_timers
            if timers.exact:
                timers.rest()

    def fail_exited(self, reason: Reason) -> None:
        """The server has ended."""
        self.resolve_with(FAILED, ServerExited(self.server, reason))

    def time_out(self) -> None:
        """The time of the call is up: its caller goes on without an answer."""
        self.resolve_with(ABANDONED, None)

    def abandon(self) -> None:
        """Nobody waits any more."""
        self._task = None
        self.resolve_with(ABANDONED, None)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def wait_settled(self, timeout: float) -> None:
        """Wait until the slot is settled, at most ``timeout`` seconds. A checkpoint."""
        if self._state != PENDING:
            await trio.lowlevel.checkpoint()
            return
        self._task = trio.lowlevel.current_task()
        if timeout == math.inf:
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        else:
            with trio.CancelScope(deadline=trio.current_time() + timeout):
                await trio.lowlevel.wait_task_rescheduled(self._abort)

    def unwrap(self) -> Any:
        """The answer, or the error it stands for."""
        if self._state == FAILED:
            raise self._value
        return self._value


@attrs.frozen(eq=False)
class CallMessage:
    """A call as a plain process receives it; answer it with ``reply(message.from_, value)``."""

    request: Any
    from_: From


def reply(from_: From, value: object) -> None:
    """Answer a call. Synchronous, from any task; a second answer and one that comes too late are dropped."""
    from_.resolve_with(ANSWERED, value)


def reply_error(from_: From, exc: BaseException) -> None:
    """Make the caller's `call` raise ``exc``; the server lives on. Otherwise like `reply`."""
    from_.resolve_with(FAILED, exc)


def check_deadlock(me: AnyPid, pid: AnyPid) -> None:
    """A process waits for at most one other, so a circle is found by following pointers."""
    if pid is me:
        raise CallingSelf(me)
    chain = [me, pid]
    step = pid._blocked_on
    # a call that its server put off may be answered by any task: nothing can be said about those
    while step is not None and not step.deferred:
        chain.append(step.server)
        if step.server is me:
            raise Deadlock(chain)
        if len(chain) > 10_000:
            return
        step = step.server._blocked_on


async def call(target: Target, request: object, timeout: float = 5.0) -> Any:
    """Send ``request`` and wait for the answer, at most ``timeout`` seconds.

    Always a checkpoint. Cancelled or timed out, the caller gives up: the request may still be handled, its answer is
    dropped. A bounded mailbox that is full is waited for inside the same timeout.

    Raises NoProc, CallTimeout, CallingSelf, Deadlock, ServerExited, and what the server gave to `reply_error`.
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
        mailbox.put((CALL, request, from_))
        pid._calls[from_] = None
        if 0 < left < math.inf:
            pid.node.call_timers.add(from_, left)
            from_._task = task
            await trio.lowlevel.wait_task_rescheduled(from_._abort)
        else:
            await from_.wait_settled(left)
    finally:
        if me is not None and blocks:
            me._blocked_on = None
        if from_._state == PENDING:
            from_.abandon()
    if from_._state == ABANDONED:
        raise CallTimeout(target, timeout)
    return from_.unwrap()


async def call_system(kind: int, target: Target, request: object, timeout: float) -> Any:
    """A call on the system lane, which overtakes the queue and is answered also by a suspended server."""
    pid = live(target)
    me = current_process()
    if me is pid and trio.lowlevel.current_task() is pid._task:
        raise CallingSelf(pid)
    from_ = From(pid, me)
    pid.mailbox.put_system((kind, request, from_))
    pid._calls[from_] = None
    try:
        await from_.wait_settled(timeout)
    finally:
        if from_._state == PENDING:
            from_.abandon()
    if from_._state == ABANDONED:
        raise CallTimeout(target, timeout)
    return from_.unwrap()


async def _wait_room(target: Target, pid: AnyPid, timeout: float) -> float:
    """Wait for room; returns what is left of the timeout."""
    began = trio.current_time()
    with trio.move_on_after(timeout) as scope:
        await pid.mailbox.wait_room()
    if scope.cancelled_caught:
        raise CallTimeout(target, timeout)
    live(target)
    return max(0.0, timeout - (trio.current_time() - began))


def cast(target: Target, message: object) -> None:
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


class RequestId:
    """A request under way, made by `send_request`."""

    __slots__ = ("_from", "target")

    def __init__(self, target: Target, from_: From | None) -> None:
        self.target = target
        self._from = from_

    @property
    def done(self) -> bool:
        """True when `wait` would not have to wait."""
        return self._from is None or not self._from.pending

    async def wait(self, timeout: float = math.inf) -> Any:
        """The answer. Always a checkpoint; on timeout or cancellation the request stays and may be waited for again.

        Raises like `call`.
        """
        if self._from is None:
            raise NoProc(self.target)
        await self._from.wait_settled(timeout)
        if self._from.pending:
            raise CallTimeout(self.target, timeout)
        return self._from.unwrap()

    def abandon(self) -> None:
        """Give up: the answer is dropped. Synchronous."""
        if self._from is not None:
            self._from.abandon()


def send_request(target: Target, request: object) -> RequestId:
    """Send a request and go on; wait for the answer later. Synchronous; MailboxFull as in `cast`."""
    pid = target.resolve()
    if pid is None or pid.mailbox.closed:
        return RequestId(target, None)
    mailbox = pid.mailbox
    if mailbox.limit is not None and mailbox.is_full():
        raise MailboxFull(target, mailbox.limit)
    from_ = From(pid, current_process())
    pid._calls[from_] = None
    mailbox.put((CALL, request, from_))
    return RequestId(target, from_)
