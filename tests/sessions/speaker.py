"""A process that holds some turns of a session and ends: ``python speaker.py JSON``.

``{"source", "folder", "options", "first", "last", "sampling", "others", "hibernate", "stall"}`` -> the history as JSON,
and the replies' log-probabilities. Meanwhile ``others`` other conversations run on the same model. ``stall``: after
these turns another one begins, which goes on until stdin ends; the line "begun" tells when.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import attrs
import trio
from talking import SAYINGS, Talking, how, talking

import paddock


async def hold(order: dict[str, Any]) -> None:
    async with talking(order["source"], Path(order["folder"]), **order["options"]) as here:
        session = await here.model.session("main")
        async with trio.open_nursery() as nursery:
            for number in range(order["others"]):
                nursery.start_soon(chatter, here, number)
            logprobs = [
                await say(session, number, order["sampling"]) for number in range(order["first"], order["last"])
            ]
            nursery.cancel_scope.cancel()
        if order.get("stall"):
            async with session.stream("Tell me a story.", max_tokens=60, ignore_eos=True) as reply:
                await reply.__anext__()
                print("begun", flush=True)
                await trio.to_thread.run_sync(sys.stdin.read)
                await reply.turn()
        if order["hibernate"]:
            await session.hibernate()
        print(json.dumps([as_json(await session.history()), logprobs]))


async def say(session: paddock.Session, number: int, sampling: dict[str, Any]) -> list[Any]:
    """Says what turn ``number`` says; the bits of the reply."""
    async with session.stream(SAYINGS[number % len(SAYINGS)], logprobs=2, **how(number, **sampling)) as reply:
        completion = await reply.result()
    assert completion.logprobs is not None
    bits: list[Any] = json.loads(json.dumps([attrs.astuple(row) for row in completion.logprobs]))
    return bits


async def chatter(here: Talking, number: int) -> None:
    """Another conversation, for as long as it is let; what it says depends on what it is."""
    turn = number
    while True:
        session = await here.model.session(f"other {number}")
        try:
            await session.say(SAYINGS[turn % len(SAYINGS)], **how(100 * number + turn, temperature=0.9))
        except paddock.ContextOverflow:
            await session.rewind(1)
        turn += 1


def as_json(history: tuple[paddock.Turn, ...]) -> Any:
    """All of it but what came from the cache."""
    turns: Any = json.loads(json.dumps([attrs.asdict(turn) for turn in history]))
    for turn in turns:
        del turn["usage"]["cached_tokens"]
    return turns


if __name__ == "__main__":
    trio.run(hold, json.loads(sys.argv[1]))
