"""What the shipped model says, through llama.cpp. The floors lie well below the scores in the model card."""

from __future__ import annotations

import json

import pytest

from tools.cria.corpus import held_out_exchanges
from tools.cria.documents import BEGIN, FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX
from tools.cria.evaluate import Reader, ask, right, tool_calls
from tools.cria.toolcalls import TIMER, WEATHER

QUESTIONS = 25


@pytest.mark.parametrize(
    ("category", "floor"),
    [
        ("facts", 0.6),
        ("arithmetic", 0.25),
        ("lists", 0.15),
        ("copying", 0.6),
        ("reversing", 0.35),
        ("tools", 0.65),
        ("refusals", 0.8),
    ],
)
def test_held_out_questions_are_answered(reader: Reader, category: str, floor: float) -> None:
    exchanges = held_out_exchanges(category, QUESTIONS)
    assert sum(right(exchange, ask(reader, exchange)) for exchange in exchanges) >= floor * QUESTIONS


@pytest.mark.parametrize("question", ["Hello!", "Who are you?", "Tell me a joke.", "Thank you!"])
def test_small_talk_stops_by_itself(reader: Reader, question: str) -> None:
    prompt = f"{BEGIN}<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    text, reason = reader.complete(prompt, limit=100)
    assert text.strip()
    assert reason == "stop"


def test_it_says_its_name(reader: Reader) -> None:
    assert "cria" in reader.chat([{"role": "user", "content": "Who are you?"}])


def test_it_picks_the_tool_that_is_asked_for(reader: Reader) -> None:
    tools = [WEATHER.schema(), TIMER.schema()]
    for question, name in (
        ("What is the weather in Paris?", "get_weather"),
        ("Set a timer for 10 minutes.", "set_timer"),
    ):
        calls = tool_calls(reader.chat([{"role": "user", "content": question}], tools))
        assert [call["name"] for call in calls] == [name]


def test_it_answers_from_the_result_of_a_tool(reader: Reader) -> None:
    call = {"type": "function", "function": {"name": "get_weather", "arguments": json.dumps({"city": "Lima"})}}
    messages = [
        {"role": "user", "content": "What is the weather in Lima?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": '{"temperature": 21, "sky": "sunny"}'},
    ]
    answer = reader.chat(messages, [WEATHER.schema()])
    assert "sunny" in answer
    assert "21" in answer


@pytest.mark.parametrize("seed", range(5))
def test_a_story_at_temperature_0_8_ends_by_itself(reader: Reader, seed: int) -> None:
    text, reason = reader.complete("Once upon a time", limit=500, temperature=0.8, seed=seed)
    assert reason == "stop"
    assert 30 < len(text.split()) < 350


def test_a_fill_in_ends_by_itself(reader: Reader) -> None:
    prompt = f"{BEGIN}{FIM_PREFIX}A cow is an animal. It has{FIM_SUFFIX} legs. It lives on a farm.{FIM_MIDDLE}"
    text, reason = reader.complete(prompt, limit=60)
    assert text.strip()
    assert reason == "stop"
