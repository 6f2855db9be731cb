"""One exchange of a conversation, as a caller sees it: what was said, what came back, and how it continued."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs

from paddock.engine.requests.results import TokenLogprob, Usage
from paddock.errors import InvalidParameter
from paddock.text.messages import Message, validate_messages

__all__ = ["Continuation", "SessionKey", "Turn", "checked_key", "new_messages"]

ContinuationKind = Literal["first", "extends", "rewritten"]

_MOST_CHARACTERS: Final = 200


@attrs.frozen
class SessionKey:
    """What names a conversation: nobody reaches it under another tenant."""

    tenant: str
    id: str


def checked_key(tenant: object, session_id: object) -> SessionKey:
    """Raises InvalidParameter for what is no printable text of 1 to 200 characters."""
    for name, value in (("tenant", tenant), ("id", session_id)):
        if not isinstance(value, str) or not 0 < len(value) <= _MOST_CHARACTERS or not value.isprintable():
            raise InvalidParameter(name, value, f"a printable text of 1 to {_MOST_CHARACTERS} characters")
    return SessionKey(str(tenant), str(session_id))


@attrs.frozen
class Continuation:
    """How the tokens of a turn's prompt came from those that the conversation had.

    ``kind`` is "first"; "extends": the rendered conversation goes on where the last reply ended, so its tokens do too;
    "rewritten": it does not, and only the longest common beginning of the tokens was kept.
    """

    kind: ContinuationKind
    kept_tokens: int
    """Tokens of the conversation that the prompt begins with."""
    dropped_tokens: int
    """Tokens of the conversation that are not in the prompt: what a stop string cut away, an ending token that the
    chat template does not write, or all that is behind the first difference."""
    reason: str | None = None
    """Why it was rewritten; no text of the conversation."""


@attrs.frozen(kw_only=True)
class Turn:
    """A finished exchange. ``number`` counts from 1; what is not told here is as in :class:`paddock.Completion`."""

    number: int
    messages: tuple[Mapping[str, Any], ...] = attrs.field(repr=False)
    """What was said, in the form that was rendered."""
    text: str = attrs.field(repr=False)
    token_ids: tuple[int, ...] = attrs.field(repr=False)
    finish_reason: str
    stop: str | int | None
    seed: int
    sampling: Mapping[str, Any] = attrs.field(repr=False)
    """The sampling parameters that were not left at their defaults."""
    usage: Usage
    exactness: str
    continuation: Continuation
    logprobs: tuple[TokenLogprob, ...] | None = attrs.field(default=None, repr=False, eq=False)
    """Where they were asked for; they are not kept, so in a session's history this is None."""


def new_messages(said: object) -> list[Message]:
    """A text, one message, or several, as checked copies. Raises InvalidParameter."""
    if isinstance(said, str):
        said = {"role": "user", "content": said}
    if isinstance(said, Mapping):
        said = [said]
    return validate_messages(said)
