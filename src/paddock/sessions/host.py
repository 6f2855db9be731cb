"""All sessions of one runtime: the store that they share, and the supervisor of their actors.

    sessions     dynamic, temporary children: one actor for each session in use

Supervisor and store are started with the first session: a runtime without sessions has neither process nor file.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import trio

import supervisors as sup
from paddock.errors import RuntimeClosed, SessionInterrupted
from paddock.sessions.conversation import Conversation, RecordedTurn, SessionFacts
from paddock.sessions.messages import BeginTurn, EndTurn, RecordTurn, Rewind, Ticket
from paddock.sessions.server import SessionServer
from paddock.sessions.store import SessionStore, Stored
from paddock.sessions.turns import SessionKey

__all__ = ["OpenTurn", "SessionHost"]

_SUPERVISOR: Final = "sessions"

_END_SECONDS: Final = 30.0
"""Bound for a loop that is overloaded beyond use, or a disk that hangs."""


@attrs.define(eq=False)
class OpenTurn:
    """A session that nobody else changes while this is open; made by :meth:`SessionHost.turn`."""

    _server: sup.Pid[Any]
    _ticket: Ticket
    _stored: Stored
    leave: bool = False
    """Whether the session's actor is to end after this."""

    @property
    def conversation(self) -> Conversation:
        """What the session holds."""
        return self._stored.conversation

    @property
    def stored(self) -> Stored:
        """The same with what tells whether it is current."""
        return self._stored

    async def record(self, turn: RecordedTurn) -> None:
        """Adds a turn. A checkpoint; once begun it is carried out, whatever becomes of the caller.

        Raises SessionStoreUnusable, SessionInterrupted.
        """
        self._stored = await self._ask(RecordTurn(self._ticket, turn))

    async def rewind(self, turns: int) -> None:
        """Forgets all but the first turns. A checkpoint, and raises, as :meth:`record`."""
        self._stored = await self._ask(Rewind(self._ticket, turns))

    async def _ask(self, request: object) -> Stored:
        try:
            stored: Stored = await sup.call(self._server, request, timeout=math.inf)
        except (sup.NoProc, sup.ServerExited):
            raise SessionInterrupted(self._stored.conversation.facts.key.id) from None
        return stored


class SessionHost:
    """``root`` is the runtime's top supervisor. ``folder`` is where the store's file will be."""

    def __init__(self, folder: Path, registry: sup.Registry, root: sup.Pid[Any]) -> None:
        self.store = SessionStore(folder)
        self._registry = registry
        self._root = root
        self._starting = trio.Lock()

    async def open(self, facts: SessionFacts) -> SessionFacts:
        """Makes the session unless there is one; what it is fixed to.

        A checkpoint. Raises SessionModelMismatch, SessionStoreUnusable.
        """
        return await self.store.open(facts)

    @asynccontextmanager
    async def turn(self, key: SessionKey, *, wait: bool) -> AsyncIterator[OpenTurn]:
        """A turn of the session, once no other is under way, here or in another process.

        Entering it is a checkpoint. Leaving it waits until the next turn can begin, which is no matter of cancellation
        and takes no longer than a change that is being written. Raises SessionBusy with ``wait=False``,
        SessionNotFound, SessionDamaged, SessionStoreUnusable, RuntimeClosed.
        """
        ticket = Ticket()
        while True:
            server = await self._server(key)
            try:
                stored: Stored = await sup.call(server, BeginTurn(ticket, wait), timeout=math.inf)
                break
            except sup.NoProc:
                continue  # it ended for want of work
            except sup.ServerExited as ended:
                if sup.is_abnormal(ended.reason):
                    raise SessionInterrupted(key.id) from None
            except BaseException:
                await _end(server, EndTurn(ticket))
                raise
        turn = OpenTurn(server, ticket, stored)
        try:
            yield turn
        finally:
            await _end(server, EndTurn(ticket, turn.leave))

    async def close(self) -> None:
        """Closes the store; no session can be used any more."""
        await self.store.close()

    async def _server(self, key: SessionKey) -> sup.Pid[Any]:
        """The session's actor, started where there is none. Raises RuntimeClosed."""
        name = ("session", key.tenant, key.id)
        async with self._starting:  # two tasks that start one actor would be an error in the log
            pid = self._registry.whereis(name)
            if pid is not None and pid.alive:
                return pid
            child = sup.child(
                SessionServer,
                self.store,
                key,
                id=f"{key.tenant!r} {key.id!r}",
                restart="temporary",
                shutdown=1.0,
                label=f"session {key.id}",
                name=self._registry.via(name),
            )
            while True:
                try:
                    return await sup.start_child(await self._supervisor(), child)
                except sup.AlreadyStarted as started:
                    await sup.wait_down(started.pid)  # it is about to end
                except (sup.NoProc, sup.ServerExited):
                    if not self._root.alive:
                        raise RuntimeClosed from None

    async def _supervisor(self) -> sup.Target:
        target = self._registry.via(_SUPERVISOR)
        if self._registry.whereis(_SUPERVISOR) is None:
            try:
                await sup.start_child(self._root, sup.child(sup.DynamicSupervisor, id=_SUPERVISOR, name=target))
            except (sup.AlreadyStarted, sup.AlreadyPresent):
                pass
        return target


async def _end(server: sup.Pid[Any], message: EndTurn) -> None:
    with trio.move_on_after(_END_SECONDS, shield=True):
        try:
            await sup.call(server, message, timeout=math.inf)
        except (sup.NoProc, sup.ServerExited):
            pass  # and the lock with it
