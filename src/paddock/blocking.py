"""Paddock from plain threads: the interface of :mod:`paddock` without ``async``, for any number of threads.

    import paddock.blocking

    with paddock.blocking.open_runtime() as runtime:
        model = runtime.load_model("cria")
        with model.stream("Once upon a time", max_tokens=48) as request:
            for delta in request:
                print(delta.text, end="")

The runtime lives on a background trio thread. A call that is interrupted (Ctrl-C, an exception from a signal handler)
cancels what it waits for, and raises once that has ended. Values, configuration and errors are those of
:mod:`paddock`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import wait
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from paddock.api import model as trio_model
from paddock.api import request as trio_request
from paddock.api import session as trio_session
from paddock.api.facades import ModelFacade, RequestFacade, RuntimeFacade, SessionFacade
from paddock.api.model import Message, Prompt
from paddock.api.portal import Configuration, TrioThread
from paddock.api.runtime import TreeNode
from paddock.api.session import Said
from paddock.cache.statistics import CacheStatistics
from paddock.config import ModelConfig
from paddock.engine.requests.results import Completion, Delta
from paddock.engine.statistics import ModelStatistics
from paddock.errors import RuntimeClosed
from paddock.sessions.turns import Turn

__all__ = ["Model", "Request", "Runtime", "Session", "SessionReply", "open_runtime"]

T = TypeVar("T")


def _call(
    thread: TrioThread,
    function: Callable[[], Awaitable[T]],
    *,
    undo: Callable[[T], Awaitable[object]] | None = None,
) -> T:
    """Runs a function on the trio thread. ``undo`` takes back a result that arrived together with an interrupt."""
    call = thread.call(function)
    try:
        call.start()
        wait([call.future])
    except BaseException:
        call.cancel()
        wait([call.future])
        if undo is not None and call.future.exception() is None:
            _call(thread, partial(undo, call.future.result()))
        raise
    return call.future.result()


class Request(RequestFacade):
    """Made by ``model.stream``; to be entered once with ``with``.

    Iterating gives :class:`paddock.Delta` values until the reply ends, and raises the request's error where it fails.
    A consumer that reads slowly pauses its own row of the batch and nobody else's.
    """

    def __enter__(self) -> Self:
        """Waits until the request is accepted into the queue; raises why it is not."""
        try:
            _call(self._thread, self._enter)
        except BaseException:
            self._abandon()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancels what still runs, and waits until its sequence is free."""
        self._abandon()
        if self._thread.runs_here:
            return  # a generator that was collected just there: its request is cancelled, waiting is for others
        try:
            _call(self._thread, self._leave)
        except RuntimeClosed:
            pass  # and the request with it

    def __iter__(self) -> Request:
        return self

    def __next__(self) -> Delta:
        """The next delta."""
        while True:
            try:
                return self._deltas.popleft()
            except IndexError:
                if self._ended:
                    raise StopIteration from None
            _call(self._thread, self._fill)

    def receive_many(self) -> list[Delta]:
        """All deltas that are waiting, at least one; an empty list at the end."""
        while True:
            taken = self._take()
            if taken or self._ended:
                return taken
            _call(self._thread, self._fill)

    def result(self) -> Completion:
        """The whole reply, once it is complete; deltas not read yet are let go.

        Raises the request's error.
        """
        self._deltas.clear()
        return _call(self._thread, self._request.result)


class SessionReply(Request):
    """Made by ``session.stream``; to be entered once with ``with``, and used as a :class:`Request`.

    The turn is part of the session once all of it has been read: by iterating to the end, by :meth:`result` or by
    :meth:`turn`. Before that, leaving the block, a cancel or an error leave the session as it was.
    """

    _request: trio_session.SessionReply

    def __init__(self, reply: trio_session.SessionReply, thread: TrioThread) -> None:
        super().__init__(reply, thread)
        self._request = reply

    def turn(self) -> Turn:
        """The whole reply as a turn of the session, once it is complete and recorded; deltas not read yet are let go.

        Raises the request's error, SessionNotSaved, SessionInterrupted.
        """
        self._deltas.clear()
        return _call(self._thread, self._request.turn)


class Session(SessionFacade):
    """One conversation with one model; made by ``model.session``. Usable by any number of threads at once.

    Turns happen one after another, in the order in which they were asked for. What a turn added is on disk when it is
    reported. A turn that fails or is interrupted leaves the session as it was.
    """

    def say(self, said: Said, **arguments: Any) -> Turn:
        """Says something and returns the turn with the whole reply, once it is recorded.

        ``said`` is a text of the user's, one message, or several (a tool's results, say). The keyword arguments are
        those of ``model.complete``. KeyboardInterrupt before the reply is complete leaves the session as it was.

        Raises SessionBusy with ``wait=False``, ContextOverflow where the conversation no longer fits, SessionNotFound,
        SessionDamaged, SessionNotSaved, the errors of ``model.chat``.
        """
        return _call(self._thread, partial(self._session.say, said, **arguments))

    def stream(self, said: Said, **arguments: Any) -> SessionReply:
        """The same as a context manager that yields deltas:

            with session.stream("And then?") as reply:
                for delta in reply: ...

        Entering it waits for the turns before it. The turn is recorded when the reply was read to its end. Raises
        InvalidParameter at once.
        """
        return SessionReply(self._session.stream(said, **arguments), self._thread)

    def history(self) -> tuple[Turn, ...]:
        """All turns, the first one first. Raises SessionNotFound, SessionDamaged, SessionStoreUnusable."""
        return _call(self._thread, self._session.history)

    def fork(self, at: int | None = None, id: str | None = None) -> Session:
        """A second conversation that begins with the first ``at`` turns of this one, by default all.

        Both share what is cached of those. ``id`` names it, by default something random.
        Raises InvalidParameter, SessionExists, SessionNotFound, SessionDamaged, SessionStoreUnusable.
        """
        return Session(_call(self._thread, partial(self._session.fork, at, id)), self._thread)

    def rewind(self, to: int) -> None:
        """Forgets all turns but the first ``to``, once no turn is under way.

        Raises InvalidParameter, SessionBusy, SessionNotFound, SessionDamaged, SessionStoreUnusable.
        """
        _call(self._thread, partial(self._session.rewind, to))

    def hibernate(self) -> None:
        """Sends the session to sleep, once no turn is under way.

        What is cached of it goes to disk, where there is a disk tier, and its process ends. The next turn goes on bit
        for bit, here or in another process, with or without what is cached.
        Raises SessionBusy, SessionNotFound, SessionDamaged, SessionStoreUnusable.
        """
        _call(self._thread, self._session.hibernate)

    def delete(self) -> None:
        """Deletes the session with all its turns, once none is under way, and what is cached of it. Idempotent.

        Raises SessionBusy, SessionStoreUnusable.
        """
        _call(self._thread, self._session.delete)


class Model(ModelFacade):
    """One model that is loaded in a runtime; made by ``runtime.load_model``. Usable by any number of threads at once.

    The keyword arguments of the request methods are those of :class:`paddock.Model`.
    """

    def complete(self, prompt: Prompt, **arguments: Any) -> Completion:
        """Completes a prompt (text, UTF-8 bytes, or token ids) and returns the whole reply.

        KeyboardInterrupt cancels the request. Raises the typed errors of :class:`paddock.RequestError` and
        :class:`paddock.ModelError`.
        """
        return _call(self._thread, partial(self._model.complete, prompt, **arguments))

    def stream(self, prompt: Prompt, **arguments: Any) -> Request:
        """The same as a context manager that yields deltas:

            with model.stream("A llama", max_tokens=200) as request:
                for delta in request: ...

        Entering it waits until the request is admitted to the queue, and raises why it is not. Leaving the block
        cancels what still runs. Raises InvalidParameter at once.
        """
        return Request(self._model.stream(prompt, **arguments), self._thread)

    def chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **arguments: Any,
    ) -> Completion:
        """Renders the messages with the model's own chat template and returns the whole reply.

        Raises ChatTemplateMissing and ChatTemplateError beside the errors of :meth:`complete`.
        """
        return _call(self._thread, partial(self._model.chat, messages, tools=tools, **arguments))

    def stream_chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **arguments: Any,
    ) -> Request:
        """Renders the messages; the returned request is used as that of :meth:`stream`."""
        request: trio_request.Request = _call(
            self._thread, partial(self._model.stream_chat, messages, tools=tools, **arguments)
        )
        return Request(request, self._thread)

    def render_chat(
        self, messages: Sequence[Message], *, tools: Sequence[Mapping[str, Any]] | None = None, **variables: Any
    ) -> str:
        """The prompt that the model's chat template makes of these messages.

        ``variables`` are further variables that the template knows, such as ``enable_thinking``. Raises
        ChatTemplateMissing, ChatTemplateError, InvalidParameter (for malformed messages or tools).
        """
        return _call(self._thread, partial(self._model.render_chat, messages, tools=tools, **variables))

    def tokenize(self, text: str | bytes, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """The token ids of a text. Raises ModelNotLoaded, WorkerDied."""
        return _call(
            self._thread, partial(self._model.tokenize, text, add_special=add_special, parse_special=parse_special)
        )

    def session(
        self,
        id: str,
        *,
        tenant: str = "default",
        system: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        wait: bool = True,
    ) -> Session:
        """The conversation of this name: a new one, or that which was held before, in this process or another.

        ``tenant`` says whose it is: another tenant's sessions, and what is cached of them, are out of reach.
        ``system`` and ``tools`` are fixed when the session is made; later they may be left out. ``wait=False``: a turn
        that is asked for while another is under way raises SessionBusy at once.

        Raises InvalidParameter, ChatTemplateMissing, SessionModelMismatch for a session that was held with another
        model file, SessionDamaged, SessionStoreUnusable.
        """
        session = partial(self._model.session, id, tenant=tenant, system=system, tools=tools, wait=wait)
        return Session(_call(self._thread, session), self._thread)

    def statistics(self) -> ModelStatistics:
        """Counters and state of this model. Raises ModelNotLoaded."""
        return _call(self._thread, self._model.statistics)

    def wait_serving(self) -> None:
        """Until the model serves (again). Raises why it never will."""
        _call(self._thread, self._model.wait_serving)


class Runtime(RuntimeFacade[Model]):
    """A supervision tree of models; made by :func:`open_runtime`. Usable from any thread."""

    def load_model(
        self,
        source: str | Path | ModelConfig,
        *,
        on_progress: Callable[[float], None] | None = None,
        **options: Any,
    ) -> Model:
        """Loads a model and returns once it serves.

        ``source`` is a model name, a path, or a :class:`paddock.ModelConfig`; ``options`` are fields of ModelConfig.
        ``on_progress`` is told the fraction loaded, 0.0 to 1.0, on the background thread; it must be quick.

        Raises ModelAlreadyLoaded, ModelNotFound, InvalidModelFile and its kinds (before llama.cpp sees the file),
        InvalidConfiguration, ModelLoadFailed, WorkerDied. KeyboardInterrupt undoes the load.
        """

        async def undo(model: trio_model.Model) -> None:
            await self._runtime.unload_model(model.name, cancel=True)

        load = partial(self._runtime.load_model, source, on_progress=on_progress, **options)
        return self._wrap(_call(self._thread, load, undo=undo))

    def unload_model(self, name: str, *, cancel: bool = False, timeout: float = float("inf")) -> None:
        """Unloads a model: no new requests, then waits for those accepted (``cancel=True`` ends them).

        After ``timeout`` seconds what still runs is cancelled (RequestCancelled with origin "unload"). The name is
        free when this returns. Raises ModelNotLoaded. KeyboardInterrupt unloads the model at once.
        """
        _call(self._thread, partial(self._runtime.unload_model, name, cancel=cancel, timeout=timeout))

    def tree(self) -> TreeNode:
        """The supervision tree as it stands."""
        return _call(self._thread, self._runtime.tree)

    def cache_statistics(self) -> CacheStatistics | None:
        """What the prefix cache of all models holds and has done; None where there is none."""
        return _call(self._thread, self._runtime.cache_statistics)

    def _facade(self, model: trio_model.Model) -> Model:
        return Model(model, self._thread)


class _Opening:
    """What :func:`open_runtime` gives; entered once. The runtime does not depend on this object's life."""

    def __init__(self, config: Configuration) -> None:
        self._config = config
        self._thread: TrioThread | None = None

    def __enter__(self) -> Runtime:
        if self._thread is not None:
            raise RuntimeError("this has been entered already; call open_runtime() again")
        self._thread = thread = TrioThread(self._config)
        try:
            wait([thread.opened])
            return Runtime(thread.opened.result(), thread)
        except BaseException:
            wait([thread.stop()])
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._thread is not None
        closed = self._thread.stop()
        if not self._thread.runs_here:
            closed.result()


def open_runtime(config: Configuration = None) -> _Opening:
    """Opens a runtime; ``config`` is a RuntimeConfig, the path of a TOML file, or None for defaults.

    Models named in the configuration are loaded before the block begins. When the block ends, by return, error or
    KeyboardInterrupt, everything is stopped in reverse order and no process is left. Threads that then still wait for
    it get RuntimeClosed or RequestCancelled with origin "shutdown".
    """
    return _Opening(config)
