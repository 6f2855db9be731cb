"""What a caller may hand in: refused with a typed error, or honoured, and never a danger to anybody else."""

from __future__ import annotations

import array
import math
from pathlib import Path
from typing import Any

import pytest

import paddock
from paddock.errors import InvalidConfiguration, InvalidParameter


class Whole(int):
    """Equal to an int, and not encodable for a worker."""


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("arguments", "parameter"),
    [
        ({"text": [1, 2]}, "text"),
        ({"text": 5}, "text"),
        ({"text": "abc", "add_special": "yes"}, "add_special"),
        ({"text": "abc", "parse_special": 1}, "parse_special"),
    ],
)
async def test_a_text_that_cannot_be_tokenized_does_not_reach_the_worker(
    runtime: paddock.Runtime, tiny_model_path: Path, arguments: dict[str, Any], parameter: str
) -> None:
    model = await runtime.load_model(tiny_model_path, n_ctx=256, n_seq_max=1)
    with pytest.raises(InvalidParameter) as caught:
        await model.tokenize(**arguments)
    assert caught.value.parameter == parameter
    assert (await model.statistics()).worker_deaths == 0


@pytest.mark.parametrize("tokens", [[99_999], [-1], "abc", [True], [1.5], 5], ids=repr)
async def test_what_is_no_token_is_not_detokenized(model: paddock.Model, tokens: Any) -> None:
    with pytest.raises(InvalidParameter) as caught:
        model.detokenize(tokens)
    assert caught.value.parameter == "tokens"


async def test_bytes_in_a_view_are_not_taken_for_token_ids(model: paddock.Model) -> None:
    with pytest.raises(InvalidParameter):
        await model.complete(memoryview(b"abc"), max_tokens=1)  # type: ignore[arg-type]
    ids = array.array("i", [300, 301])
    assert (await model.complete(ids, max_tokens=1)).usage.prompt_tokens == 2


async def test_values_that_only_derive_from_plain_ones_are_honoured(model: paddock.Model) -> None:
    plain: dict[str, Any] = {"seed": 1, "max_tokens": 3, "stop": ["zzz"], "logit_bias": {301: 1.0}}
    derived: dict[str, Any] = {
        "seed": Whole(1),
        "max_tokens": Whole(3),
        "stop": [Text("zzz")],
        "stop_token_ids": [Whole(400)],
        "logit_bias": {Whole(301): 1.0},
    }
    expected = await model.complete([300], **plain, stop_token_ids=[400])
    assert await model.complete([Whole(300)], **derived) == expected


async def test_a_prompt_changed_by_its_owner_while_it_runs_changes_nothing(model: paddock.Model) -> None:
    prompt = [300, 301, 302]
    expected = await model.complete(prompt, max_tokens=5, seed=1)
    request = model.stream(prompt, max_tokens=5, seed=1)
    prompt[:] = [1] * 200
    async with request:
        assert await request.result() == expected


@pytest.mark.parametrize("deadline", [10**400, math.nan, -1, True, "1"], ids=lambda value: str(value)[:10])
async def test_a_deadline_is_a_number_of_seconds(model: paddock.Model, deadline: Any) -> None:
    with pytest.raises(InvalidParameter) as caught:
        await model.complete("abc", deadline=deadline)
    assert caught.value.parameter == "deadline"


async def test_the_context_is_as_long_as_was_asked_for_and_no_longer(model: paddock.Model) -> None:
    assert model.n_ctx == 300
    full = await model.complete([300] * 10, max_tokens=290, ignore_eos=True)
    assert full.usage.completion_tokens == 290
    with pytest.raises(paddock.ContextOverflow):
        await model.complete([300] * 10, max_tokens=291)
    assert (await model.complete([300] * 10, ignore_eos=True)).usage.completion_tokens == 290


async def test_more_tokens_at_least_than_the_context_has_room_for_are_refused(model: paddock.Model) -> None:
    with pytest.raises(InvalidParameter) as caught:
        await model.complete([300] * 10, min_tokens=291)
    assert caught.value.parameter == "min_tokens"
    assert (await model.complete([300] * 10, min_tokens=290)).usage.completion_tokens == 290


async def test_an_error_shows_no_more_of_a_value_than_fits_a_line(model: paddock.Model) -> None:
    with pytest.raises(InvalidParameter) as caught:
        model.stream([1.5] * 1_000_000)  # type: ignore[list-item]
    assert len(str(caught.value)) < 200


# --- loading and unloading ------------------------------------------------------------------------------


async def test_an_unknown_option_of_a_model_is_refused_by_name(runtime: paddock.Runtime, tiny_model_path: Path) -> None:
    for source in (tiny_model_path, paddock.ModelConfig(source=tiny_model_path)):
        with pytest.raises(InvalidConfiguration) as caught:
            await runtime.load_model(source, n_ctxx=512)
        assert caught.value.field == "n_ctxx"
    with pytest.raises(InvalidConfiguration, match="on_progress"):
        await runtime.load_model(tiny_model_path, on_progress=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(("option", "value"), [("timeout", -1), ("timeout", math.nan), ("timeout", "1"), ("cancel", 1)])
async def test_a_refused_unload_leaves_the_model_loaded(
    runtime: paddock.Runtime, model: paddock.Model, option: str, value: Any
) -> None:
    with pytest.raises(InvalidParameter) as caught:
        await runtime.unload_model("tiny", **{option: value})
    assert caught.value.parameter == option
    assert runtime.model("tiny") is model


async def test_a_listener_that_fails_is_let_go_and_the_model_loads(
    runtime: paddock.Runtime, tiny_model_path: Path
) -> None:
    heard: list[float] = []

    def listener(fraction: float) -> None:
        heard.append(fraction)
        raise ZeroDivisionError

    model = await runtime.load_model(tiny_model_path, on_progress=listener, isolation="thread", n_ctx=256)
    assert len(heard) == 1
    assert (await model.complete("abc", max_tokens=1)).token_ids


@pytest.mark.parametrize("config", [1, True, 1.5, {}, []], ids=repr)
async def test_a_runtime_takes_a_configuration_or_a_path_and_touches_nothing_else(config: Any) -> None:
    with pytest.raises(InvalidConfiguration):
        async with paddock.open_runtime(config):
            pass
