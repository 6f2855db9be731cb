"""Turns as rows of the session store, and back: what is read is checked against a checksum before it is believed."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

import numpy as np

from paddock.engine.requests.results import Usage
from paddock.sessions.conversation import RecordedTurn
from paddock.sessions.turns import Continuation, Turn

__all__ = ["TURN_COLUMNS", "row_of", "turn_of"]

TURN_COLUMNS: Final = (
    "number", "kept_tokens", "new_tokens", "reply_tokens", "kept_text", "new_text", "reply", "details", "checksum",
)  # fmt: skip

Row = tuple[Any, ...]


def row_of(recorded: RecordedTurn) -> Row:
    """The values of TURN_COLUMNS."""
    turn = recorded.turn
    continuation, usage = turn.continuation, turn.usage
    details = {
        "messages": turn.messages,
        "finish_reason": turn.finish_reason,
        "stop": turn.stop,
        "seed": turn.seed,
        "sampling": dict(turn.sampling),
        "usage": [usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens],
        "exactness": turn.exactness,
        "continuation": [continuation.kind, continuation.dropped_tokens, continuation.reason],
    }
    values = (
        turn.number,
        recorded.kept_tokens,
        _packed(recorded.new_tokens),
        _packed(turn.token_ids),
        recorded.kept_text,
        recorded.new_text,
        turn.text,
        json.dumps(details, ensure_ascii=False, separators=(",", ":")),
    )
    return (*values, _checksum(values))


def turn_of(row: Row) -> RecordedTurn:
    """Raises ValueError for a row that is not as it was written."""
    *values, checksum = row
    if checksum != _checksum(tuple(values)):
        raise ValueError("the checksum of a turn is wrong")
    number, kept_tokens, new_tokens, reply_tokens, kept_text, new_text, reply, text = values
    details = json.loads(text)
    kind, dropped, reason = details["continuation"]
    turn = Turn(
        number=number,
        messages=tuple(details["messages"]),
        text=reply,
        token_ids=_unpacked(reply_tokens),
        finish_reason=details["finish_reason"],
        stop=details["stop"],
        seed=details["seed"],
        sampling=details["sampling"],
        usage=Usage(*details["usage"]),
        exactness=details["exactness"],
        continuation=Continuation(kind, kept_tokens, dropped, reason),
    )
    return RecordedTurn(turn, kept_tokens, _unpacked(new_tokens), kept_text, new_text)


def _packed(tokens: tuple[int, ...]) -> bytes:
    return np.asarray(tokens, dtype="<i4").tobytes()


def _unpacked(tokens: bytes) -> tuple[int, ...]:
    return tuple(np.frombuffer(tokens, dtype="<i4").tolist())


def _checksum(values: Row) -> bytes:
    digest = hashlib.blake2b(digest_size=16, person=b"paddock-turn")
    for value in values:
        encoded = value if isinstance(value, bytes) else str(value).encode()
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.digest()
