"""A conversation that survives everything: the handle of a session, and of a reply in it.

session = await model.session("user-42")
turn = await session.say("And then?", seed=7)
await session.hibernate()                     # the next say() goes on bit for bit
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any

import attrs
import trio

from paddock.api.request import Request
from paddock.engine.requests.actor import RequestSpec
from paddock.engine.requests.results import Completion, Delta
from paddock.engine.served import shortest_possible
from paddock.errors import (
    ContextOverflow,
    InvalidParameter,
    RequestCancelled,
    SessionDamaged,
    SessionModelMismatch,
    SessionNotFound,
    SessionNotSaved,
    SessionStoreUnusable,
    WorkerBusy,
    WorkerDied,
)
from paddock.sampling.parameters import SamplingParameters
from paddock.sessions.cached import cache_tenant
from paddock.sessions.continuation import PlannedTurn, plan_turn
from paddock.sessions.conversation import Conversation, RecordedTurn, SessionFacts
from paddock.sessions.host import OpenTurn, SessionHost
from paddock.sessions.turns import Turn, checked_key, new_messages
from paddock.text.messages import Message

if TYPE_CHECKING:
    from paddock.api.model import Model

__all__ = ["Said", "Session", "SessionReply"]

Said = str | Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""What a turn begins with: a text of the user's, one message, or several."""

_BUSY_SECONDS = 0.05


class SessionReply(Request):
    """Made by ``session.stream``; to be entered once with ``async with``, and used as a :class:`Request`.

    The turn is part of the session once all of it has been read: by iterating to the end, by :meth:`result` or by
    :meth:`turn`. Before that, leaving the block, a cancel or an error leave the session as it was.
    """

    def __init__(self, session: Session, messages: list[Message], spec: RequestSpec) -> None:
        model = session._model
        super().__init__(spec, model._child(spec), model._requests, model.supervisor)
        self._session = session
        self._messages = messages
        self._preparing = trio.CancelScope()
        self._recording = trio.Lock()
        self._open_turn: OpenTurn | None = None
        self._plan: PlannedTurn | None = None
        self._turn: Turn | None = None
        self._stack = AsyncExitStack()

    def _cancel(self, origin: str) -> None:
        super()._cancel(origin)
        if self._plan is None:
            self._preparing.cancel()

    async def __aenter__(self) -> SessionReply:
        """Waits for its turn of the session and until the request is accepted; raises why it is not."""
        if self._entered:
            raise RuntimeError("a reply can be entered once; make another with session.stream()")
        async with AsyncExitStack() as stack:
            with self._preparing:
                opened = await stack.enter_async_context(self._session._turn())
                self._open_turn = opened
                self._plan = plan = await self._session._plan(opened.conversation, self._messages)
                self._spec = attrs.evolve(self._spec, prompt=plan.tokens, generated=plan.flags)
                self._child = self._session._model._child(self._spec)
            if self._cancelled is not None:
                self._entered = True
                raise RequestCancelled(self._cancelled)
            await super().__aenter__()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancels what still runs, and lets the next turn begin."""
        try:
            await super().__aexit__(kind, error, trace)
        finally:
            await self._stack.aclose()

    async def __anext__(self) -> Delta:
        """The next delta; after the last one the turn is recorded."""
        try:
            return await super().__anext__()
        except StopAsyncIteration:
            await self._record()
            raise

    async def receive_many(self) -> list[Delta]:
        """All deltas that are waiting, at least one; an empty list at the end. A checkpoint.

        The turn is recorded before the end is told.
        """
        deltas = await super().receive_many()
        if not deltas:
            await self._record()
        return deltas

    async def result(self) -> Completion:
        """The whole reply, once it is complete; deltas not read yet are let go. A checkpoint.

        The turn is recorded before this returns. Raises the request's error, SessionNotSaved, SessionInterrupted.
        """
        completion = await super().result()
        await self._record()
        return completion

    async def turn(self) -> Turn:
        """The whole reply as a turn of the session, once it is complete and recorded; deltas not read yet are let go.

        A checkpoint. Raises as :meth:`result`.
        """
        await self.result()
        assert self._turn is not None
        return self._turn

    async def _record(self) -> None:
        async with self._recording:
            if self._turn is not None:
                return
            opened, plan = self._open_turn, self._plan
            assert opened is not None
            assert plan is not None
            completion = await super().result()
            turn = Turn(
                number=len(opened.conversation.turns) + 1,
                messages=tuple(self._messages),
                text=completion.text,
                token_ids=completion.token_ids,
                finish_reason=completion.finish_reason,
                stop=completion.stop,
                seed=completion.seed,
                sampling=_as_stored(self._spec.sampling),
                usage=completion.usage,
                exactness=completion.exactness,
                continuation=plan.continuation,
                logprobs=completion.logprobs,
            )
            try:
                kept = attrs.evolve(turn, logprobs=None)
                await opened.record(
                    RecordedTurn(kept, plan.kept_tokens, plan.new_tokens, plan.kept_text, plan.new_text)
                )
            except SessionStoreUnusable as error:
                raise SessionNotSaved(self._session.id, error.problem, completion.text) from error
            self._turn = turn


class Session:
    """One conversation with one model; made by ``model.session``. Usable by any number of tasks at once.

    Turns happen one after another, in the order in which they were asked for. What a turn added is on disk when it is
    reported. A turn that fails or is cancelled leaves the session as it was.
    """

    def __init__(self, model: Model, host: SessionHost, facts: SessionFacts, *, wait: bool) -> None:
        self._model = model
        self._host = host
        self._facts = facts
        self._wait = wait

    @property
    def id(self) -> str:
        """Its name among its tenant's sessions."""
        return self._facts.key.id

    @property
    def tenant(self) -> str:
        """Whose it is."""
        return self._facts.key.tenant

    @property
    def system(self) -> str | None:
        """The system message that stands before the conversation; None where there is none."""
        return self._facts.system

    async def say(self, said: Said, **arguments: Any) -> Turn:
        """Says something and returns the turn with the whole reply, once it is recorded.

        ``said`` is a text of the user's, one message, or several (a tool's results, say). The keyword arguments are
        those of ``model.complete``. A checkpoint; cancelled before the reply is complete, the session is as it was.

        Raises SessionBusy with ``wait=False``, ContextOverflow where the conversation no longer fits, SessionNotFound,
        SessionDamaged, SessionNotSaved, the errors of ``model.chat``.
        """
        async with self._reply(said, arguments, streaming=False) as reply:
            return await reply.turn()

    def stream(self, said: Said, **arguments: Any) -> SessionReply:
        """The same as an async context manager that yields deltas:

            async with session.stream("And then?") as reply:
                async for delta in reply: ...

        Entering it waits for the turns before it. The turn is recorded when the reply was read to its end. Not a
        checkpoint itself; raises InvalidParameter at once.
        """
        return self._reply(said, arguments, streaming=True)

    async def history(self) -> tuple[Turn, ...]:
        """All turns, the first one first. A checkpoint.

        Raises SessionNotFound, SessionDamaged, SessionStoreUnusable.
        """
        conversation = self._checked((await self._host.store.read(self._facts.key)).conversation)
        return tuple(recorded.turn for recorded in conversation.turns)

    async def fork(self, at: int | None = None, id: str | None = None) -> Session:
        """A second conversation that begins with the first ``at`` turns of this one, by default all.

        Both share what is cached of those. ``id`` names it, by default something random. A checkpoint.
        Raises InvalidParameter, SessionExists, SessionNotFound, SessionDamaged, SessionStoreUnusable.
        """
        key = checked_key(self.tenant, secrets.token_hex(8) if id is None else id)
        stored = await self._host.store.read(self._facts.key)
        conversation = self._checked(stored.conversation)
        turns = len(conversation.turns) if at is None else _checked_turns("at", at, conversation)
        await self._host.store.fork(stored, turns, key)
        return Session(self._model, self._host, attrs.evolve(self._facts, key=key), wait=self._wait)

    async def rewind(self, to: int) -> None:
        """Forgets all turns but the first ``to``, once no turn is under way. A checkpoint.

        Raises InvalidParameter, SessionBusy, SessionNotFound, SessionDamaged, SessionStoreUnusable.
        """
        async with self._turn() as opened:
            await opened.rewind(_checked_turns("to", to, opened.conversation))

    async def hibernate(self) -> None:
        """Sends the session to sleep, once no turn is under way.

        What is cached of it goes to disk, where there is a disk tier, and its process ends. The next turn goes on bit
        for bit, here or in another process, with or without what is cached. A checkpoint.
        Raises SessionBusy, SessionNotFound, SessionDamaged, SessionStoreUnusable.
        """
        async with self._turn() as opened:
            cached = self._model._cached_sessions()
            if cached is not None:
                await cached.put_to_sleep(opened.conversation)
            opened.leave = True

    async def delete(self) -> None:
        """Deletes the session with all its turns, once none is under way, and what is cached of it. Idempotent.

        A checkpoint. Raises SessionBusy, SessionStoreUnusable.
        """
        key = self._facts.key
        try:
            async with self._turn() as opened:
                opened.leave = True
                cached = self._model._cached_sessions()
                if cached is not None:
                    await cached.forget(opened.conversation)
                await self._host.store.delete(key)
        except (SessionDamaged, SessionModelMismatch):
            await self._host.store.delete(key)
        except SessionNotFound:
            pass

    # --- for the reply ------------------------------------------------------------------------------------

    def _reply(self, said: Said, arguments: dict[str, Any], *, streaming: bool) -> SessionReply:
        for name in ("add_special", "parse_special"):
            if name in arguments:
                raise InvalidParameter(name, arguments[name], "a session's prompts come from the chat template")
        messages = new_messages(said)
        # The prompt is known when the turns before this one are over; all else is checked now.
        spec = self._model._spec([0], arguments, streaming=streaming)
        return SessionReply(self, messages, attrs.evolve(spec, tenant=cache_tenant(self.tenant)))

    def _turn(self) -> AbstractAsyncContextManager[OpenTurn]:
        return self._host.turn(self._facts.key, wait=self._wait)

    async def _plan(self, conversation: Conversation, messages: list[Message]) -> PlannedTurn:
        """The prompt of a new turn. Raises the errors of rendering and tokenizing, SessionModelMismatch."""
        self._checked(conversation)
        model = self._model
        tools: Any = list(conversation.facts.tools) or None
        rendering = await model.render_chat(conversation.messages(messages), tools=tools)
        bos = model._special_text("bos")

        async def tokenize(text: str, beginning: bool) -> list[int]:
            # A template writes its own special tokens, and most write the first one too.
            add_special = beginning and not (bos and text.startswith(bos))
            bound = shortest_possible(model._served, text.encode())
            if bound > model.n_ctx:
                raise ContextOverflow(bound, None, model.n_ctx, at_least=True)
            while True:
                try:
                    return await model.tokenize(text, add_special=add_special, parse_special=True)
                except WorkerBusy:
                    await trio.sleep(_BUSY_SECONDS)
                except WorkerDied:
                    await model.wait_serving()

        return await plan_turn(conversation, rendering, model._served.table, tokenize)

    def _checked(self, conversation: Conversation) -> Conversation:
        """It may have been deleted meanwhile, and made anew with another model."""
        facts = conversation.facts
        if facts.fingerprint != self._facts.fingerprint:
            raise SessionModelMismatch(self.id, facts.model, self._model.name)
        return conversation

    def __repr__(self) -> str:
        return f"<paddock.Session {self.id!r} with {self._model.name!r}>"


def _checked_turns(parameter: str, turns: int, conversation: Conversation) -> int:
    most = len(conversation.turns)
    if isinstance(turns, bool) or not isinstance(turns, int) or not 0 <= turns <= most:
        raise InvalidParameter(parameter, turns, f"a number of turns from 0 to {most}")
    return turns


def _as_stored(sampling: SamplingParameters) -> dict[str, Any]:
    """What was not left at its default, in the form in which it comes back from disk."""
    default = SamplingParameters().to_mapping()
    given = {name: value for name, value in sampling.to_mapping().items() if value != default[name] and name != "seed"}
    stored: dict[str, Any] = json.loads(json.dumps(given, default=str))
    return stored
