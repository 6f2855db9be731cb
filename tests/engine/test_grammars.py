"""Grammars end to end: replies match them, neighbours notice nothing, and no grammar takes a worker down."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import trio
from serving import all_at_once, one_after_another, serving

import paddock

ISOLATIONS = ["thread", "process"]

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 16},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "colours": {"type": "array", "items": {"enum": ["red", "green"]}, "maxItems": 3},
    },
    "required": ["name", "age", "colours"],
    "additionalProperties": False,
}
LARK = 'start: "to " NAME " and " NAME\nNAME: /[A-Z][a-z]{1,6}/'


# Takes seconds to compile.
SLOW = "start: T0\n" + "\n".join(f'T{i}: ("x"|T{i + 1} "y")+' for i in range(2500)) + '\nT2500: "a"'


def prompt(number: int) -> list[int]:
    return [300 + number, 301, 302 + number]


def constrained(number: int) -> dict[str, Any]:
    grammars: list[dict[str, Any]] = [{"json_schema": SCHEMA}, {"regex": "(yes|no)( sir)?"}, {"grammar": LARK}]
    samplers: list[dict[str, Any]] = [
        {"temperature": 0.0},
        {"temperature": 1.0, "repeat_penalty": 1.2, "dry_multiplier": 0.8},
        {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "logprobs": 2},
    ]
    sampler = samplers[number // 3 % 3]
    return {"prompt": prompt(number), "seed": number, "max_tokens": 200, **grammars[number % 3], **sampler}


def free(number: int) -> dict[str, Any]:
    return {"prompt": prompt(number), "seed": number, "max_tokens": 24, "temperature": 0.8, "ignore_eos": True}


def check(completion: paddock.Completion, request: dict[str, Any]) -> None:
    """The reply matches its grammar; one that was cut off at its last token matches no more than a beginning."""
    assert completion.finish_reason in ("stop", "length")
    if completion.finish_reason == "length":
        assert request["temperature"] == 0.0, "only a greedy reply may go round in circles"
        return
    if "json_schema" in request:
        read = json.loads(completion.text)
        assert list(read) == ["name", "age", "colours"]
        assert isinstance(read["name"], str)
        assert len(read["name"]) <= 16
        assert 0 <= read["age"] <= 150
        assert set(read["colours"]) <= {"red", "green"}
    elif "regex" in request:
        assert re.fullmatch(request["regex"], completion.text)
    else:
        assert re.fullmatch("to [A-Z][a-z]{1,6} and [A-Z][a-z]{1,6}", completion.text)


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_replies_match_their_grammars_alone_and_beside_others_whose_replies_stay_the_same(
    tiny_model_path: Path, isolation: str
) -> None:
    requests = [make(number) for number in range(9) for make in (constrained, free)]
    async with serving(tiny_model_path, isolation=isolation) as model:
        together = await all_at_once(model, requests)
        assert together == await one_after_another(model, requests)
        for completion, request in zip(together, requests, strict=True):
            if "ignore_eos" not in request:
                check(completion, request)


async def test_a_house_model_fills_in_a_schema() -> None:
    async with paddock.open_runtime() as runtime:
        model = await runtime.load_model("cria", n_threads=1)
        completion = await model.complete("Once upon a time", json_schema=SCHEMA, seed=3, temperature=1.0)
    assert completion.finish_reason == "stop"
    check(completion, {"json_schema": SCHEMA, "temperature": 1.0})


REFUSED: list[dict[str, Any]] = [
    {"regex": "("},
    {"regex": r"[^\s\S]"},  # nothing matches it
    {"grammar": "start: start"},
    {"grammar": "no grammar"},
    {"grammar": "start: " + "(" * 20_000 + '"a"' + ")" * 20_000},
    {"json_schema": {"type": "integer", "minimum": 5, "maximum": 2}},
    {"json_schema": {"$ref": "#"}},
    {"json_schema": {"$ref": "http://127.0.0.1:1/schema"}},
    {"json_schema": {"allOf": [{"anyOf": [{"const": 40 * i + j} for j in range(40)]} for i in range(40)]}},
    {"grammar": SLOW},
]


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_a_grammar_that_cannot_be_used_fails_its_own_request_and_no_other(
    tiny_model_path: Path, isolation: str
) -> None:
    async with serving(tiny_model_path, isolation=isolation) as model:
        expected = await model.complete(**free(1))
        refusals: list[str] = []

        async def refused(grammar: dict[str, Any]) -> None:
            (parameter,) = grammar
            with pytest.raises(paddock.InvalidParameter) as caught:
                await model.complete(prompt(0), max_tokens=5, **grammar)
            assert caught.value.parameter == parameter
            refusals.append(parameter)

        async with trio.open_nursery() as nursery:
            for grammar in REFUSED:
                nursery.start_soon(refused, grammar)
            assert await model.complete(**free(1)) == expected
        assert len(refusals) == len(REFUSED)
        assert await model.complete(**free(1)) == expected
        check(await model.complete(**constrained(1)), constrained(1))
        assert (await model.statistics()).worker_deaths == 0


async def test_rules_that_nest_thousands_deep_do_not_end_the_worker(tiny_model_path: Path) -> None:
    """llguidance walks them by recursion."""
    chain = "start: r0\n" + "\n".join(f"r{i}: r{i + 1}" for i in range(4000)) + '\nr4000: "a"'
    async with serving(tiny_model_path) as model:
        completion = await model.complete(prompt(0), grammar=chain, max_tokens=5)
        assert (completion.text, completion.finish_reason) == ("a", "stop")
        assert (await model.statistics()).worker_deaths == 0


async def test_an_unconstrained_reply_is_not_held_up_by_a_grammar_that_compiles_for_seconds(
    tiny_model_path: Path,
) -> None:
    async with serving(tiny_model_path) as model:
        finished: list[str] = []

        async def compile_it() -> None:
            with pytest.raises(paddock.InvalidParameter):
                await model.complete(prompt(0), grammar=SLOW)
            finished.append("grammar")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(compile_it)
            await model.complete(**free(2))
            finished.append("reply")
        assert finished == ["reply", "grammar"]


async def test_a_logits_processor_and_a_grammar_both_act(tiny_model_path: Path) -> None:
    def no_yes(token_ids: Any, logits: Any) -> None:
        logits[yes] = float("-inf")

    async with serving(tiny_model_path) as model:
        served = [number for number in range(2048) if model.detokenize([number]).startswith("y")]
        yes = served
        completion = await model.complete(prompt(0), regex="(yes|no)", max_tokens=5, logits_processor=no_yes)
    assert completion.text == "no"


async def test_min_tokens_holds_while_the_grammar_has_more_to_give(tiny_model_path: Path) -> None:
    async with serving(tiny_model_path) as model:
        long = await model.complete(prompt(0), regex="[a-z ]*", min_tokens=20, max_tokens=60, seed=1)
        assert len(long.token_ids) >= 20
        short = await model.complete(prompt(0), regex="no", min_tokens=20, max_tokens=60, seed=1)
        assert (short.text, short.finish_reason) == ("no", "stop")


async def test_a_grammar_whose_tokens_are_all_banned_fails_its_request(tiny_model_path: Path) -> None:
    async with serving(tiny_model_path) as model:
        digits = [number for number in range(2048) if model.detokenize([number]).strip().isdigit()]
        with pytest.raises(paddock.SamplingFailed):
            await model.complete(
                prompt(0), regex="[0-9]+", max_tokens=5, logit_bias={token: float("-inf") for token in digits}
            )
