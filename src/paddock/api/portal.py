"""A runtime on a trio thread of its own, and the way to it from other threads and event loops.

A caller elsewhere hands over a function as a :class:`Call`: a future, and a way to cancel. Everything crosses by
``TrioToken.run_sync_soon``, which never blocks, never polls, and may be used by an event loop, in a signal handler and
in ``__del__``. anyio's blocking portal would block an asyncio loop until the trio thread has a moment, lets a result be
lost that arrives together with a cancellation, and hangs a forked child that exits.
"""

from __future__ import annotations

import atexit
import contextvars
import os
import threading
import warnings
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, Generic, TypeVar

import attrs
import trio

from paddock.api.runtime import Runtime, open_runtime
from paddock.config import RuntimeConfig
from paddock.errors import RuntimeClosed

__all__ = ["Call", "CallCancelled", "Configuration", "TrioThread"]

T = TypeVar("T")

Configuration = RuntimeConfig | str | Path | None
"""What ``open_runtime`` takes."""

EXIT_SECONDS = 10.0
"""How long the interpreter's exit waits for runtimes that nobody closed; then their workers end with the process."""


class CallCancelled(BaseException):
    """The outcome of a call that its caller cancelled; users never see it."""


@attrs.define(eq=False)
class Call(Generic[T]):
    """One function that runs on the trio thread for a caller elsewhere; ``future`` is its outcome.

    Made first and started then, so that a caller who is interrupted in between still knows what to cancel.
    """

    _send: Callable[..., None]
    """Calls a function on the trio thread; raises RunFinishedError where there is none."""
    _state: _State
    function: Callable[[], Awaitable[T]]
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    future: Future[T] = attrs.field(factory=Future)
    started: bool = False
    """Whether there is, or was, a task for it; known to the trio thread alone."""

    def start(self) -> None:
        """Does not block. Where the runtime is closed, the future says so."""
        try:
            self._send(self._state.start, self)
        except trio.RunFinishedError:
            self._closed()

    def cancel(self) -> None:
        """Cancels the function; ``future`` is done once it has ended. Idempotent, from any thread."""
        try:
            self._send(self._cancel)
        except trio.RunFinishedError:
            self._closed()

    def _closed(self) -> None:
        if not self.future.done():
            self.future.set_exception(RuntimeClosed())

    def _cancel(self) -> None:
        self.scope.cancel()
        if not self.started and not self.future.done():
            self.future.set_exception(CallCancelled())


class TrioThread:
    """A background thread with one runtime in it. Its methods may be called from any thread.

    It belongs to the process that made it: a forked child has no such thread, and every call there raises
    RuntimeClosed. A daemon thread, so that a runtime that nobody closed does not keep the interpreter from exiting;
    the exit closes it. Collected by the garbage collector, it closes itself, with a ResourceWarning.
    """

    def __init__(self, config: Configuration) -> None:
        self._state = _State()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=_run_thread, args=(config, self._state), name="paddock", daemon=True)
        self._thread.start()
        self._token = self._state.started.result()  # within a millisecond: trio runs, nothing is loaded yet
        self._finalizer = weakref.finalize(self, _abandoned, self._state)
        self._finalizer.atexit = False  # _close_all() does that, and waits

    @property
    def opened(self) -> Future[Runtime]:
        """Done when the runtime is open and its configured models serve, or with the error."""
        return self._state.opened

    @property
    def runs_here(self) -> bool:
        """Whether the caller is on the background thread itself, where waiting for it would be for ever.

        Only a garbage collection that happens there brings a user's objects to it.
        """
        return threading.current_thread() is self._thread

    def call(self, function: Callable[[], Awaitable[T]]) -> Call[T]:
        """``await function()`` on the trio thread, once it is started."""
        return Call(self._send, self._state, function)

    def notify(self, function: Callable[..., object], *args: Any) -> None:
        """Calls ``function(*args)``, which must not raise, on the trio thread some time soon, if there is one."""
        try:
            self._send(function, *args)
        except trio.RunFinishedError:
            pass

    def stop(self) -> Future[None]:
        """Begins to close the runtime; idempotent. The future is done once everything in it has ended.

        It holds the error with which the runtime ended, if it did not end by being closed.
        """
        self._finalizer.detach()
        self.notify(self._state.stop)
        if os.getpid() != self._pid and not self._state.closed.done():
            self._state.closed.set_result(None)  # it is the parent's to close
        return self._state.closed

    def _send(self, function: Callable[..., object], *args: Any) -> None:
        if os.getpid() != self._pid:
            raise trio.RunFinishedError
        self._token.run_sync_soon(function, *args)


class _State:
    """What the background thread itself holds on to; nothing in here refers to a user's objects."""

    def __init__(self) -> None:
        self.started: Future[trio.lowlevel.TrioToken] = Future()
        self.opened: Future[Runtime] = Future()
        self.closed: Future[None] = Future()
        self.opening = trio.CancelScope()
        self.stopped = trio.Event()
        self.nursery: trio.Nursery | None = None
        self.context: contextvars.Context | None = None

    # --- on the trio thread

    def stop(self) -> None:
        self.stopped.set()
        if not self.opened.done():
            self.opening.cancel()

    def start(self, call: Call[Any]) -> None:
        """Starts a call as a task, in the context in which the runtime was opened."""
        if self.nursery is None or self.context is None:
            call.future.set_exception(RuntimeClosed())
        else:
            call.started = True
            self.context.run(self.nursery.start_soon, _run_call, call)


def _run_thread(config: Configuration, state: _State) -> None:
    """The background thread. Whatever happens, every future is done when it ends."""
    _open[state] = os.getpid()
    failure: BaseException | None = None
    try:
        trio.run(_host, config, state)
    except BaseException as error:
        failure = error
    _open.pop(state, None)
    state.nursery = None
    for future in (state.started, state.opened):
        if not future.done():
            future.set_exception(failure or RuntimeClosed())
            failure = None  # reported
    if failure is None:
        state.closed.set_result(None)
    else:
        state.closed.set_exception(failure)


async def _host(config: Configuration, state: _State) -> None:
    """The life of the runtime. Calls may outlive its block by a few steps: its end gives them their proper errors."""
    state.started.set_result(trio.lowlevel.current_trio_token())
    failure: BaseException | None = None
    with state.opening:
        async with trio.open_nursery() as calls:
            try:
                async with open_runtime(config) as runtime:
                    state.nursery, state.context = calls, contextvars.copy_context()
                    state.opened.set_result(runtime)
                    await state.stopped.wait()
            except Exception as error:
                failure = error  # carried around the nursery, which would wrap it in a group
            finally:
                state.nursery = None
            calls.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _run_call(call: Call[T]) -> None:
    """One call. Its cancellation and its errors end in its future; only the end of the thread passes."""
    try:
        with call.scope:
            call.future.set_result(await call.function())
            return
    except trio.Cancelled:
        call.future.set_exception(RuntimeClosed())
        raise
    except BaseException as error:
        call.future.set_exception(error)
        return
    call.future.set_exception(CallCancelled())


_open: dict[_State, int] = {}
"""The runtimes that are open, with the process they belong to."""


def _abandoned(state: _State) -> None:
    """Nobody can use the runtime any more. May run on any thread in the middle of anything: does not wait."""
    try:
        state.started.result().run_sync_soon(state.stop)
    except trio.RunFinishedError:
        return
    warnings.warn("a paddock runtime was not closed; use 'with open_runtime()'", ResourceWarning, stacklevel=2)


@atexit.register
def _close_all() -> None:
    """Closes what nobody closed, so that no worker outlives the interpreter's exit."""
    left = [state for state, pid in list(_open.items()) if pid == os.getpid()]
    for state in left:
        try:
            state.started.result().run_sync_soon(state.stop)
        except trio.RunFinishedError:
            pass
    wait([state.closed for state in left], timeout=EXIT_SECONDS)
