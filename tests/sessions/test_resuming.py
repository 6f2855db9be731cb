"""A conversation that was put to sleep, or whose process ended, goes on byte for byte as one that was not."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from speaker import as_json, say
from talking import GREEDY, SAYINGS, WILD, talking

TURNS = 12
BLOCK = 64

CASES = [
    ("cria", "process", WILD, {"disk": True}, True),
    ("tiny_model_path", "thread", WILD, {"disk": True}, True),
    ("tiny_k_quant_model_path", "process", WILD, {"disk": True}, False),
    ("tiny_k_quant_model_path", "thread", GREEDY, {"ram": 0}, True),
]


SPEAKER = Path(__file__).with_name("speaker.py")


def speak(**order: Any) -> Any:
    """The history after some turns in a process of their own, and the bits of the replies."""
    ended = subprocess.run(
        [sys.executable, SPEAKER, json.dumps(order)],
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    return json.loads(ended.stdout)


@pytest.mark.parametrize(
    ("name", "isolation", "sampling", "cache", "hibernate"),
    CASES,
    ids=[f"{name}-{isolation}-{'greedy' if sampling is GREEDY else 'wild'}" for name, isolation, sampling, *_ in CASES],
)
async def test_turns_in_several_processes_among_other_conversations_equal_the_unbroken_conversation(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    name: str,
    isolation: str,
    sampling: dict[str, Any],
    cache: dict[str, Any],
    hibernate: bool,
) -> None:
    source = name if name == "cria" else str(request.getfixturevalue(name))
    async with talking(source, tmp_path / "unbroken") as here:
        session = await here.model.session("main")
        unbroken = [await say(session, number, sampling) for number in range(TURNS)]
        history = as_json(await session.history())
    cuts = sorted(random.Random(name + isolation).sample(range(1, TURNS), 2))
    broken, bits = None, []
    for first, last in zip([0, *cuts], [*cuts, TURNS], strict=True):
        broken, more = await trio.to_thread.run_sync(
            partial(
                speak,
                source=source,
                folder=str(tmp_path / "broken"),
                options={"isolation": isolation, **cache},
                first=first,
                last=last,
                sampling=sampling,
                others=6,
                hibernate=hibernate,
            )
        )
        bits += more
    assert broken == history
    assert bits == unbroken


async def test_turn_twenty_computes_what_is_new_and_saves_its_own_blocks(tiny_model_path: Path, tmp_path: Path) -> None:
    async with talking(str(tiny_model_path), tmp_path) as here:
        session = await here.model.session("main")
        rows, saved, lengths = [], [], []
        for number in range(20):
            turn = await session.say(SAYINGS[number % 2], seed=number, max_tokens=20, ignore_eos=True)
            cache, use = await here.settled(), await here.model.statistics()
            rows.append(use.prefill_rows + use.decode_rows)
            saved.append(cache.saved_blocks)
            lengths.append(turn.usage.prompt_tokens + turn.usage.completion_tokens)
        for number in range(1, 20):
            length, before = lengths[number], lengths[number - 1]
            # The last token that was sampled has no cells: nothing was computed behind it.
            assert saved[number] - saved[number - 1] == (length - 1) // BLOCK - (before - 1) // BLOCK
            assert rows[number] - rows[number - 1] < length - before + BLOCK
        assert saved[-1] == (lengths[-1] - 1) // BLOCK > 10
