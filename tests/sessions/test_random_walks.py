"""Whatever is done to sessions in whatever order: what was said decides what is answered, and nothing else does."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import attrs
import pytest
from talking import SAYINGS, WILD, Talking, talking

import paddock

Path_ = tuple[tuple[str, int, str], ...]
"""What was said in a conversation: text, seed and stop string of each turn."""


@attrs.define
class Walk:
    """Random operations on random sessions, compared with a dictionary of what was answered before."""

    rng: random.Random
    held: dict[str, Path_] = attrs.field(factory=dict)
    answers: dict[Path_, paddock.Turn] = attrs.field(factory=dict)
    repeated: int = 0

    async def step(self, here: Talking) -> None:
        rng = self.rng
        name = rng.choice([*self.held, "new"]) if len(self.held) < 6 else rng.choice(list(self.held))
        if name == "new":
            name = f"session {rng.randrange(1000)}"
            self.held.setdefault(name, ())
        session, path = await here.model.session(name), self.held[name]
        match rng.choice(["say"] * 6 + ["stream", "stream", "fork", "rewind", "hibernate", "delete", "give up"]):
            case "say":
                await self.say(session, name)
            case "stream":
                await self.say(session, name, stream=True)
            case "fork":
                at = rng.randrange(len(path) + 1)
                fork = await session.fork(at)
                self.held[fork.id] = path[:at]
            case "rewind":
                to = rng.randrange(len(path) + 1)
                await session.rewind(to)
                self.held[name] = path[:to]
            case "hibernate":
                await session.hibernate()
            case "delete":
                await session.delete()
                del self.held[name]
                return
            case "give up":
                async with session.stream("Hello!", max_tokens=30, ignore_eos=True) as reply:
                    await reply.__anext__()
        history = await session.history()
        assert history == tuple(self.answers[self.held[name][: number + 1]] for number in range(len(history)))
        assert len(history) == len(self.held[name])

    async def say(self, session: paddock.Session, name: str, *, stream: bool = False) -> None:
        """Few things are said, so that conversations meet again."""
        rng = self.rng
        said = rng.choice([(SAYINGS[0], 1, ""), (SAYINGS[1], 2, ""), (SAYINGS[1], 2, "a")])
        text, seed, stop = said
        arguments: dict[str, Any] = {"seed": seed, "max_tokens": 12, **WILD, **({"stop": stop} if stop else {})}
        if stream:
            async with session.stream(text, **arguments) as reply:
                async for _ in reply:
                    pass
                turn = await reply.turn()
        else:
            turn = await session.say(text, **arguments)
        path = self.held[name] = (*self.held[name], said)
        self.repeated += path in self.answers
        assert self.answers.setdefault(path, turn) == turn


@pytest.mark.parametrize("seed", [1, 2])
async def test_the_same_things_said_get_the_same_answers_whatever_happened_in_between(
    seed: int, tiny_model_path: Path, tmp_path: Path
) -> None:
    walk = Walk(random.Random(seed))
    source = ["cria", str(tiny_model_path)][seed % 2]
    for _ in range(3):  # runtimes
        async with talking(source, tmp_path, disk=walk.rng.random() < 0.5, ram=walk.rng.choice([0, 1 << 20])) as here:
            for _ in range(40):
                await walk.step(here)
    assert walk.repeated > 10
