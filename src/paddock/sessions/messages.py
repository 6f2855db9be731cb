"""What is said to a session's actor, and by it to the process that holds its lock."""

from __future__ import annotations

import attrs

import supervisors as sup
from paddock.errors import PaddockError
from paddock.sessions.conversation import RecordedTurn
from paddock.sessions.store import Stored

__all__ = ["BeginTurn", "EndTurn", "RecordTurn", "Rewind", "Ticket", "TurnEnded", "TurnGranted", "TurnOver"]


class Ticket:
    """Names one turn; made by who wants to have it, so that it can be given back before it was granted."""

    __slots__ = ()


@attrs.frozen
class BeginTurn:
    """Call: answered with the Stored conversation as soon as nobody else has a turn, or with SessionBusy.

    To be followed by :class:`EndTurn` in any case, also where the call was given up.
    """

    ticket: Ticket
    wait: bool


@attrs.frozen
class RecordTurn:
    """Call, by who has the turn: adds it; answered with the Stored conversation."""

    ticket: Ticket
    turn: RecordedTurn = attrs.field(repr=False)


@attrs.frozen
class Rewind:
    """Call, by who has the turn: forgets all but the first turns; answered with the Stored conversation."""

    ticket: Ticket
    turns: int


@attrs.frozen
class EndTurn:
    """Call: the next one may begin; answered when the lock is free. ``leave``: the actor may end when there is no next
    one. Idempotent."""

    ticket: Ticket
    leave: bool = False


@attrs.frozen
class TurnGranted:
    """Cast holder -> actor: the session is ours for this turn, and this is what it holds; or why it is not."""

    holder: sup.Pid[object]
    stored: Stored | None = attrs.field(repr=False)
    error: PaddockError | None = None


@attrs.frozen
class TurnEnded:
    """Cast holder -> actor: the lock is free again."""

    holder: sup.Pid[object]


@attrs.frozen
class TurnOver:
    """Sent actor -> holder: let go of the lock, or stop waiting for it."""
