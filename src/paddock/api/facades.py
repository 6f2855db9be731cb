"""What the asyncio and the blocking facade have in common: everything that never waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

from paddock.api.model import Model
from paddock.api.portal import TrioThread
from paddock.api.request import Request
from paddock.api.runtime import Runtime
from paddock.api.session import Session
from paddock.config import ModelConfig, RuntimeConfig
from paddock.engine.requests.actor import RequestProgress
from paddock.engine.requests.results import Delta
from paddock.models.facts import ModelFacts
from paddock.native.exactness.certificate import Certificate

__all__ = ["ModelFacade", "RequestFacade", "RuntimeFacade", "SessionFacade"]

ModelT = TypeVar("ModelT")


class RequestFacade:
    """A request that runs on the trio thread, seen from elsewhere."""

    def __init__(self, request: Request, thread: TrioThread) -> None:
        self._request = request
        self._thread = thread
        # Filled by the trio thread before its call ends, so a batch of deltas survives a caller that is cancelled
        # at that moment.
        self._deltas: deque[Delta] = deque()
        self._ended = False
        self._left = False

    @property
    def id(self) -> str:
        """A name for logs, unique in this process."""
        return self._request.id

    @property
    def model(self) -> str:
        """The name of the model that serves it."""
        return self._request.model

    @property
    def seed(self) -> int:
        """The seed that all draws follow from; drawn when the request was made, if none was given."""
        return self._request.seed

    @property
    def progress(self) -> RequestProgress:
        """Phase (queued, prefill, decode, ended) and token counts, live."""
        return self._request.progress

    @property
    def finished(self) -> bool:
        """Whether the outcome is known; deltas may still wait to be read."""
        return self._request.finished

    def cancel(self) -> None:
        """Cancels the request, wherever it is. Synchronous, idempotent, from any task and any thread.

        A queued request leaves at once; a decoding one frees its sequence within a step, a prefilling one within a
        chunk. Deltas that are already waiting can still be read; then RequestCancelled is raised.
        """
        self._thread.notify(self._request.cancel)

    # --- on the trio thread

    async def _fill(self) -> None:
        """Moves all waiting deltas over, at least one unless the reply has ended."""
        deltas = await self._request.receive_many()
        self._deltas.extend(deltas)
        if not deltas:
            self._ended = True

    async def _enter(self) -> None:
        await self._request.__aenter__()

    async def _leave(self) -> None:
        await self._request.__aexit__(None, None, None)

    # --- elsewhere

    def _take(self) -> list[Delta]:
        taken: list[Delta] = []
        try:
            while True:
                taken.append(self._deltas.popleft())
        except IndexError:
            return taken

    def _abandon(self) -> None:
        """Cancels without waiting, where nobody can wait."""
        self._left = True
        self._thread.notify(self._request._cancel, "consumer")

    def __del__(self) -> None:
        if not self._left:
            self._abandon()

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.Request {self.id} {self.progress.phase}>"


class SessionFacade:
    """A conversation, seen from elsewhere."""

    def __init__(self, session: Session, thread: TrioThread) -> None:
        self._session = session
        self._thread = thread

    @property
    def id(self) -> str:
        """Its name among its tenant's sessions."""
        return self._session.id

    @property
    def tenant(self) -> str:
        """Whose it is."""
        return self._session.tenant

    @property
    def system(self) -> str | None:
        """The system message that stands before the conversation; None where there is none."""
        return self._session.system

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.Session {self.id!r}>"


class ModelFacade:
    """A loaded model, seen from elsewhere."""

    def __init__(self, model: Model, thread: TrioThread) -> None:
        self._model = model
        self._thread = thread

    @property
    def name(self) -> str:
        """The name it is served under."""
        return self._model.name

    @property
    def config(self) -> ModelConfig:
        """How it was loaded."""
        return self._model.config

    @property
    def facts(self) -> ModelFacts:
        """What the file's header says: architecture, weight types, sizes, chat template, memory class."""
        return self._model.facts

    @property
    def n_ctx(self) -> int:
        """Tokens per sequence: prompt and reply together."""
        return self._model.n_ctx

    @property
    def exactness(self) -> str:
        """The recipe that this model runs under, "canonical" or "invariant", where its certificate holds; "unproven"
        where it does not; "off" where none was wanted."""
        return self._model.exactness

    @property
    def certificate(self) -> Certificate | None:
        """What the probe of exactness found when the model was loaded (last); None with ``exactness="off"``."""
        return self._model.certificate

    def detokenize(self, tokens: Iterable[int]) -> str:
        """The text of these tokens, special ones left out; undecodable bytes come out as U+FFFD."""
        return self._model.detokenize(tokens)

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.Model {self.name!r} n_ctx={self.n_ctx} exactness={self.exactness!r}>"


class RuntimeFacade(Generic[ModelT]):
    """A runtime that lives on the trio thread, seen from elsewhere. ``ModelT`` is the facade's Model."""

    def __init__(self, runtime: Runtime, thread: TrioThread) -> None:
        self._runtime = runtime
        self._thread = thread
        self._wrapped: dict[str, tuple[Model, ModelT]] = {}

    @property
    def config(self) -> RuntimeConfig:
        """How it was set up."""
        return self._runtime.config

    @property
    def models(self) -> dict[str, ModelT]:
        """The loaded models by name. A model whose subtree gave up is gone from it."""
        return {name: self._wrap(model) for name, model in self._runtime.models.items()}

    def model(self, name: str) -> ModelT:
        """The loaded model of this name. Raises ModelNotLoaded."""
        return self._wrap(self._runtime.model(name))

    def _wrap(self, model: Model) -> ModelT:
        """The same facade for the same model."""
        known, facade = self._wrapped.get(model.name, (None, None))
        if known is not model or facade is None:
            facade = self._facade(model)
            self._wrapped[model.name] = (model, facade)
        return facade

    def _facade(self, model: Model) -> ModelT:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.Runtime {repr(self._runtime).partition(' ')[2]}"
