from __future__ import annotations

import json
from typing import Any

import pytest

from paddock.cli.conversation import Command, Conversation, Turn, parse_line
from paddock.cli.plain import as_json
from paddock.engine.requests.results import Completion, Usage
from paddock.errors import RequestCancelled


def completion(text: str) -> Completion:
    return Completion(
        model="m", text=text, token_ids=(1, 2), finish_reason="stop", stop=None, seed=7, usage=Usage(3, 0, 2),
        exactness="canonical",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("", None),
        ("  \t", None),
        (" Hello there ", "Hello there"),
        ("/quit", Command("quit", "")),
        ("/system You are  brief. ", Command("system", "You are  brief.")),
        ("//etc is a folder", "/etc is a folder"),
        ("/", Command("", "")),
    ],
)
def test_a_line_is_a_command_a_message_or_nothing(line: str, meaning: object) -> None:
    assert parse_line(line) == meaning


def test_the_model_is_told_the_turns_that_got_a_whole_reply() -> None:
    turns = [Turn("a", completion("A")), Turn("b", RequestCancelled("handle")), Turn("c", completion("C"))]
    conversation = Conversation("m", "Be brief.", "canonical", turns)
    assert [(m["role"], m["content"]) for m in conversation.messages("d")] == [
        ("system", "Be brief."),
        ("user", "a"),
        ("assistant", "A"),
        ("user", "c"),
        ("assistant", "C"),
        ("user", "d"),
    ]


def test_a_reset_keeps_the_system_message() -> None:
    conversation = Conversation("m", "Be brief.", None, [Turn("a", completion("A"))])
    conversation.reset()
    assert [m["role"] for m in conversation.messages("d")] == ["system", "user"]


def test_the_written_conversation_has_every_turn() -> None:
    conversation = Conversation(
        "m", None, "canonical", [Turn("a", completion("A")), Turn("b", RequestCancelled("handle"))]
    )
    written: dict[str, Any] = json.loads(as_json(conversation.described()))
    assert {name: written[name] for name in ("model", "exactness", "system")} == {
        "model": "m",
        "exactness": "canonical",
        "system": None,
    }
    first, second = written["turns"]
    assert first == {
        "user": "a",
        "assistant": "A",
        "token_ids": [1, 2],
        "finish_reason": "stop",
        "seed": 7,
        "usage": {"prompt_tokens": 3, "cached_tokens": 0, "completion_tokens": 2},
    }
    assert second["error"]["type"] == "RequestCancelled"
    assert conversation.failed
