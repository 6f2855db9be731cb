"""Requests that are waited for later: one, any of several, all of several."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

import attrs
import trio

from supervisors.errors import CallTimeout, DuplicateRequest, MailboxFull, NoProc, NoRequest, RequestAbandoned
from supervisors.processes.call_timeouts import deadline_after
from supervisors.processes.deadlock import begin_wait
from supervisors.processes.mailbox import CALL
from supervisors.processes.pid import Pid, Target, current_process

from .call import ABANDONED, From
from .request_types import Request, UntypedRequest

if TYPE_CHECKING:
    from supervisors.names.registry import Via

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")
LabelT = TypeVar("LabelT")


class RequestId(Generic[R_co]):
    """A request under way, made by `send_request`; ``R`` is the type of its answer."""

    __slots__ = ("_from", "target")

    def __init__(self, target: Target, from_: From | None) -> None:
        self.target = target
        self._from = from_

    @property
    def done(self) -> bool:
        """True when `wait` would not have to wait."""
        return self._from is None or not self._from.pending

    async def wait(self, timeout: float = math.inf) -> R_co:
        """The answer. Always a checkpoint; on timeout or cancellation the request stays and may be waited for again.

        Raises like `call`; BusyResourceError when another task or a collection waits for it; RequestAbandoned.
        """
        from_ = self._from
        if from_ is None:
            raise NoProc(self.target)
        me = begin_wait(from_) if from_.pending else None
        try:
            await from_.wait_settled(timeout)
        finally:
            if me is not None:
                me._blocked_on = None
        if from_.pending:
            raise CallTimeout(self.target, timeout)
        return self.result()

    def result(self) -> R_co:
        """The answer of a request that is done; raises like `wait`. Synchronous."""
        if self._from is None:
            raise NoProc(self.target)
        if self._from._state == ABANDONED:
            raise RequestAbandoned(self.target)
        return cast("R_co", self._from.unwrap())

    def abandon(self) -> None:
        """Give up: the answer is dropped. Synchronous."""
        if self._from is not None:
            self._from.abandon()


@overload
def send_request(target: Pid[S], request: Request[R, S]) -> RequestId[R]: ...
@overload
def send_request(target: Via, request: Request[R, Any]) -> RequestId[R]: ...
@overload
def send_request(target: Target, request: UntypedRequest | None) -> RequestId[Any]: ...
def send_request(target: Target, request: Any) -> RequestId[Any]:
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


@attrs.frozen
class Response(Generic[LabelT]):
    """How one request of a collection ended: with ``value``, or with ``error`` when that is not None."""

    label: LabelT
    value: Any = None
    error: BaseException | None = None

    def unwrap(self) -> Any:
        """The value, or the error raised."""
        if self.error is not None:
            raise self.error
        return self.value


class RequestCollection(Generic[LabelT]):
    """Requests of which any is waited for, whichever is answered first; each has a label to tell them by.

    For one task at a time. A request belongs to one collection and is waited for there alone. Adding and waiting
    take the same time however many requests there are. A circle of processes closed by `wait_any` is not detected.
    """

    __slots__ = ("_labels", "_ready", "_task")

    def __init__(self) -> None:
        self._labels: dict[RequestId[Any], LabelT] = {}
        self._ready: deque[RequestId[Any]] = deque()
        self._task: trio.lowlevel.Task | None = None

    def __len__(self) -> int:
        return len(self._labels)

    def __repr__(self) -> str:
        return f"<RequestCollection of {len(self)}, {len(self._ready)} of them answered>"

    def add(self, request: RequestId[Any], label: LabelT) -> None:
        """Add a request. Synchronous; DuplicateRequest when it is in a collection or is being waited for."""
        from_ = request._from
        if request in self._labels or (from_ is not None and from_._waiter is not None):
            raise DuplicateRequest(request)
        self._labels[request] = label
        if from_ is None or not from_.pending:
            self._ready.append(request)
        else:
            from_._waiter = partial(self._settled, request)

    def _settled(self, request: RequestId[Any], _: From) -> None:
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)  # first: outside trio's thread this raises, and nothing has happened
            self._task = None
        self._ready.append(request)

    async def wait_any(self, timeout: float = math.inf) -> Response[LabelT]:
        """Take out the request that was answered first, or wait for one. Always a checkpoint.

        A request that failed, because its server is dead or gave an error, comes as a response with that error. On
        timeout (CallTimeout) and cancellation the collection stays as it is. NoRequest when it is empty.
        """
        if not self._labels:
            raise NoRequest
        if self._task is not None:
            raise trio.BusyResourceError("another task waits for this collection already")
        if self._ready:
            await trio.lowlevel.checkpoint()
        else:
            with trio.CancelScope(deadline=deadline_after(timeout)):
                self._task = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._abort)
        if not self._ready:
            raise CallTimeout(self, timeout)
        request = self._ready.popleft()
        label = self._labels.pop(request)
        try:
            return Response(label, request.result())
        except BaseException as exc:
            return Response(label, error=exc)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


@overload
async def multi_call(
    targets: Iterable[Pid[S]], request: Request[R, S], timeout: float = 5.0
) -> tuple[list[tuple[Pid[Any], R]], list[tuple[Pid[Any], Exception]]]: ...
@overload
async def multi_call(
    targets: Iterable[Target], request: UntypedRequest | None, timeout: float = 5.0
) -> tuple[list[tuple[Target, Any]], list[tuple[Target, Exception]]]: ...
async def multi_call(targets: Iterable[Any], request: Any, timeout: float = 5.0) -> Any:
    """Ask all ``targets`` at the same time: ``(replies, bad)``, pairs of target and answer, and of target and error.

    Takes at most ``timeout`` seconds, however many there are; both lists are in the order of the targets. Whoever is
    dead, full, waits for this process, gives an error or is late is among the bad. A checkpoint; cancelled, what is
    still to come is dropped.
    """
    deadline = deadline_after(timeout)
    replies: list[tuple[Any, Any]] = []
    bad: list[tuple[Any, Exception]] = []
    sent: list[tuple[Any, RequestId[Any] | Exception]] = []
    try:
        for target in targets:
            try:
                sent.append((target, send_request(target, request)))
            except MailboxFull as exc:
                sent.append((target, exc))
        await trio.lowlevel.checkpoint()
        for target, request_id in sent:
            if isinstance(request_id, Exception):
                bad.append((target, request_id))
                continue
            try:
                answer = await request_id.wait(max(0.0, deadline - trio.current_time()))
            except Exception as exc:
                late = isinstance(exc, CallTimeout) and not request_id.done
                bad.append((target, CallTimeout(target, timeout) if late else exc))
            else:
                replies.append((target, answer))
    finally:
        for _, request_id in sent:
            if isinstance(request_id, RequestId):
                request_id.abandon()
    return replies, bad
