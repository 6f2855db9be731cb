"""The actor of one session: it lets one turn at a time happen, keeps what the session holds, and records turns.

    BeginTurn -> (queue) -> holder takes the lock, reads -> granted -> RecordTurn, Rewind -> EndTurn -> next

The lock among processes is held by a process of its own, the *holder*, for as long as a turn lasts: waiting for another
process keeps nobody from asking this actor, and whatever ends the holder frees the lock. Between two turns another
process may have a turn of the session; what is kept here is read again then.

An actor that nobody has asked for a while ends. The next turn starts another one.
"""

from __future__ import annotations

import os
from collections import deque
from typing import Any, Final

import attrs
import trio

import supervisors as sup
from paddock.errors import PaddockError, SessionBusy, SessionInterrupted
from paddock.sessions.lock import SessionLock
from paddock.sessions.messages import (
    BeginTurn,
    EndTurn,
    RecordTurn,
    Rewind,
    Ticket,
    TurnEnded,
    TurnGranted,
    TurnOver,
)
from paddock.sessions.store import SessionStore, Stored
from paddock.sessions.turns import SessionKey
from paddock.telemetry.discretion import Discreet, discreet

__all__ = ["IDLE_SECONDS", "MOST_WAITING", "SessionServer"]

IDLE_SECONDS: Final = 60.0
"""How long an actor keeps a conversation in memory that nobody asks for; reading it again takes milliseconds."""

MOST_WAITING: Final = 100
"""Turns of one session that may wait."""

_POLL_SECONDS: Final = 0.05
"""How often a lock is tried that another process has: there is no way to wait for one that can be given up."""


@attrs.define(eq=False)
class _Turn:
    ticket: Ticket
    from_: sup.From
    wait: bool
    holder: sup.Pid[Any] | None = None
    granted: bool = False
    ended: list[sup.From] = attrs.field(factory=list)
    """Who has said that it is over, and waits until the lock is free."""


class SessionServer(Discreet, sup.GenServer):
    """State is the turn under way, those that wait, and what the last one left."""

    def __init__(self, store: SessionStore, key: SessionKey) -> None:
        self._store = store
        self._key = key
        self._stored: Stored | None = None
        self._turn: _Turn | None = None
        self._waiting: deque[_Turn] = deque()
        self._leaving = False

    async def init(self) -> sup.Timeout:
        return sup.Timeout(IDLE_SECONDS)

    async def handle_call(self, request: object, from_: sup.From) -> sup.Reply | sup.NoReply | sup.Stop:
        try:
            match request:
                case BeginTurn(ticket, wait):
                    self._begin(_Turn(ticket, from_, wait))
                case RecordTurn(ticket, turn):
                    self._stored = await self._store.record(self._current(ticket), turn)
                    return sup.Reply(self._stored)
                case Rewind(ticket, turns):
                    self._stored = await self._store.rewind(self._current(ticket), turns)
                    return sup.Reply(self._stored)
                case EndTurn(ticket, leave):
                    self._leaving = leave
                    return self._end(ticket, from_)
                case _:
                    raise TypeError(f"unknown request {type(request).__name__}")
        except PaddockError as error:
            sup.reply_error(from_, error)
        return sup.NoReply(self._then())

    async def handle_cast(self, message: object) -> sup.Stop | sup.Timeout | None:
        match message:
            case TurnGranted(holder, stored, error):
                self._granted(holder, stored, error)
            case TurnEnded(holder):
                if self._turn is not None and self._turn.holder is holder:
                    for from_ in self._turn.ended:
                        sup.reply(from_, None)
                    self._turn = None
                    self._next()
            case _:
                raise TypeError(f"unknown message {type(message).__name__}")
        then = self._then()
        return sup.Stop(sup.Normal()) if then is not None and self._leaving else then

    async def handle_timeout(self) -> sup.Stop:
        return sup.Stop(sup.Normal())

    def _begin(self, turn: _Turn) -> None:
        busy = self._turn is not None and not self._turn.ended and not turn.wait
        if busy or len(self._waiting) >= MOST_WAITING:
            raise SessionBusy(self._key.id, os.getpid())
        self._waiting.append(turn)
        self._next()

    def _next(self) -> None:
        if self._turn is None and self._waiting:
            self._turn = turn = self._waiting.popleft()
            turn.holder = sup.spawn_link(
                _hold, sup.self(), self._store, self._key, self._stored, turn.wait, label="turn"
            )

    def _granted(self, holder: sup.Pid[Any], stored: Stored | None, error: PaddockError | None) -> None:
        turn = self._turn
        if turn is None or turn.holder is not holder:
            return
        if stored is None:
            sup.reply_error(turn.from_, error or SessionInterrupted(self._key.id))
            return
        self._stored = stored
        turn.granted = True
        sup.reply(turn.from_, stored)

    def _current(self, ticket: Ticket) -> Stored:
        """Raises SessionInterrupted for a ticket that was granted by an earlier actor of the session."""
        turn = self._turn
        if turn is None or turn.ticket is not ticket or not turn.granted or self._stored is None:
            raise SessionInterrupted(self._key.id)
        return self._stored

    def _end(self, ticket: Ticket, from_: sup.From) -> sup.Reply | sup.NoReply:
        turn = self._turn
        if turn is None or turn.ticket is not ticket:
            self._waiting = deque(waiting for waiting in self._waiting if waiting.ticket is not ticket)
            return sup.Reply(None, self._then())
        if not turn.ended:
            assert turn.holder is not None
            sup.send(turn.holder, TurnOver())
        turn.ended.append(from_)
        return sup.NO_REPLY

    def _then(self) -> sup.Timeout | None:
        return sup.Timeout(IDLE_SECONDS) if self._turn is None and not self._waiting else None

    def format_status(self) -> object:
        """No text and no tokens."""
        turns = None if self._stored is None else len(self._stored.conversation.turns)
        return {"turns": turns, "busy": self._turn is not None, "waiting": len(self._waiting)}


@discreet
async def _hold(owner: sup.Pid[Any], store: SessionStore, key: SessionKey, known: Stored | None, wait: bool) -> None:
    """Body of a holder: takes the lock, reads the session, and waits for the turn's end."""
    stored: Stored | None = None
    error: PaddockError | None = None
    lock = SessionLock(store.lock_folder, key)
    try:
        while not await _acquired(lock):
            if not wait:
                raise SessionBusy(key.id, lock.holder)
            with trio.move_on_after(_POLL_SECONDS):
                await sup.receive()
                return
        stored = await store.read(key, known)
        sup.cast(owner, TurnGranted(sup.self(), stored))
        await sup.receive()
    except PaddockError as refused:
        error = refused
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(lock.release)
        if error is not None:
            sup.cast(owner, TurnGranted(sup.self(), None, error))
        sup.cast(owner, TurnEnded(sup.self()))


async def _acquired(lock: SessionLock) -> bool:
    """In a thread, as the file may lie on a slow disk. When cancelled, the lock is given back by its holder."""
    return await trio.to_thread.run_sync(lock.acquire)
