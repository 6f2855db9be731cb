"""The handle of one request: iterate over it, wait for its result, cancel it."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import trio

import supervisors as sup
from paddock.engine.requests.actor import RequestProgress, RequestSpec
from paddock.engine.requests.messages import CancelRequest
from paddock.engine.requests.results import Completion, Delta
from paddock.engine.tree import RESTART_SECONDS
from paddock.errors import ModelNotLoaded, RequestCancelled

__all__ = ["Request"]


class Request:
    """Made by ``model.stream``; to be entered once with ``async with``.

    Iterating gives :class:`Delta` values until the reply ends, and raises the request's error where it fails.
    A consumer that reads slowly pauses its own row of the batch and nobody else's.
    """

    def __init__(self, spec: RequestSpec, child: sup.ChildSpec, requests: sup.Target, supervisor: sup.Pid[Any]) -> None:
        self._spec = spec
        self._child = child
        self._requests = requests
        self._supervisor = supervisor
        self._pid: sup.Pid[Any] | None = None
        self._entered = False
        self._cancelled: str | None = None

    @property
    def id(self) -> str:
        """A name for logs, unique in this process."""
        return self._spec.request_id

    @property
    def model(self) -> str:
        return self._spec.model

    @property
    def seed(self) -> int:
        """The seed that all draws follow from; drawn when the request was made, if none was given."""
        return self._spec.seed

    @property
    def progress(self) -> RequestProgress:
        """Phase (queued, prefill, decode, ended) and token counts, live."""
        return self._spec.progress

    @property
    def finished(self) -> bool:
        """Whether the outcome is known; deltas may still wait to be read."""
        return self._spec.delivery.closed

    def cancel(self) -> None:
        """Cancels the request, wherever it is. Synchronous, idempotent, from any task of the runtime's loop.

        A queued request leaves at once; a decoding one frees its sequence within a step, a prefilling one within a
        chunk. Deltas that are already waiting can still be read; then RequestCancelled is raised.
        """
        self._cancel("handle")

    def _cancel(self, origin: str) -> None:
        if self._cancelled is None and not self._spec.delivery.closed:
            self._cancelled = origin
            if self._pid is not None:
                sup.cast(self._pid, CancelRequest(origin))

    async def __aenter__(self) -> Request:
        if self._entered:
            raise RuntimeError("a request can be entered once; make another with model.stream()")
        self._entered = True
        if self._cancelled is not None:
            raise RequestCancelled(self._cancelled)
        try:
            pid = await self._start()
        except BaseException:
            # The supervisor starts the actor all the same; it finds its outcome decided and ends.
            self._spec.delivery.fail(RequestCancelled("consumer"))
            raise
        self._pid = pid
        if self._cancelled is not None:
            sup.cast(pid, CancelRequest(self._cancelled))
        try:
            await self._spec.delivery.wait_started()
        except BaseException:
            await self._leave()
            raise
        return self

    async def _start(self) -> sup.Pid[Any]:
        """Starts the actor under its model's own supervisor, whose name may belong to another model by now."""
        while self._supervisor.alive:
            try:
                return await sup.start_child(self._requests, self._child)
            except (sup.NoProc, sup.ServerExited):
                await trio.sleep(RESTART_SECONDS)
            except sup.StartFailed:
                break
        raise ModelNotLoaded(self._spec.model)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave()

    async def _leave(self) -> None:
        """The consumer is gone: nothing of this request may go on."""
        self._cancel("consumer")
        if self._pid is not None:
            # The actor answers a cancel at once; the bound is for a loop that is overloaded beyond use.
            with trio.move_on_after(5.0, shield=True):
                await sup.wait_down(self._pid)

    def __aiter__(self) -> Request:
        return self

    async def __anext__(self) -> Delta:
        self._check_entered()
        delta = await self._spec.delivery.receive()
        if delta is None:
            raise StopAsyncIteration
        return delta

    async def receive_many(self) -> list[Delta]:
        """All deltas that are waiting, at least one; an empty list at the end. A checkpoint."""
        self._check_entered()
        first = await self._spec.delivery.receive()
        return [] if first is None else [first, *self._spec.delivery.take()]

    async def result(self) -> Completion:
        """The whole reply, once it is complete; deltas not read yet are let go. A checkpoint.

        Raises the request's error.
        """
        self._check_entered()
        delivery = self._spec.delivery
        while await delivery.receive() is not None:
            delivery.take()
        return await delivery.wait_closed()

    def _check_entered(self) -> None:
        if not self._entered:
            raise RuntimeError("enter the request first: async with model.stream(...) as request")

    def __repr__(self) -> str:
        return f"<paddock.Request {self.id} {self._spec.progress.phase}>"
