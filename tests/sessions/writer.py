"""A process that records turns as fast as it can, and prints the number of each: ``python writer.py FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from paddock.engine.requests.results import Usage
from paddock.sessions.conversation import RecordedTurn, SessionFacts
from paddock.sessions.store import SessionStore
from paddock.sessions.turns import Continuation, SessionKey, Turn

FACTS = SessionFacts(SessionKey("default", "one"), "fingerprint", "model", "A system message.", ({"type": "function"},))


def recorded(number: int) -> RecordedTurn:
    """Some turn of this number; each keeps all that was before it."""
    kept_tokens, kept_text = 12 * (number - 1), 14 * (number - 1)
    turn = Turn(
        number=number,
        messages=({"role": "user", "content": "Hello!"},),
        text="reply",
        token_ids=(4, 3, 2, 1, number),
        finish_reason="stop",
        stop=None,
        seed=number,
        sampling={"temperature": 0.5, "stop": ["x"]},
        usage=Usage(kept_tokens + 7, 3, 5),
        exactness="canonical",
        continuation=Continuation("extends", kept_tokens, 0),
    )
    return RecordedTurn(turn, kept_tokens, (9, 8, 7, 6, 5, 4, 3), kept_text, "rendering")


async def write(folder: Path) -> None:
    store = SessionStore(folder)
    await store.open(FACTS)
    stored = await store.read(FACTS.key)
    while True:
        stored = await store.record(stored, recorded(len(stored.conversation.turns) + 1))
        print(len(stored.conversation.turns), flush=True)


if __name__ == "__main__":
    trio.run(write, Path(sys.argv[1]))
