from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import attrs
import click
import pytest
from click.testing import CliRunner

from paddock.cli import main
from paddock.cli.options import LOAD_OPTIONS, load_arguments
from paddock.cli.sampling_options import sampling_arguments, sampling_options
from paddock.cli.values import _HOUSE_MODELS
from paddock.config import Exactness, ExactnessRecipe, Isolation, ModelConfig
from paddock.models import HOUSE_MODELS
from paddock.sampling.parameters import PARAMETERS, SamplingParameters


def option_of(command: str, name: str) -> click.Option:
    found = [p for p in main.commands[command].params if p.name == name]
    assert len(found) == 1, f"{command} has {len(found)} parameters named {name}"
    assert isinstance(found[0], click.Option)
    return found[0]


def parsed(*arguments: str) -> dict[str, Any]:
    given: dict[str, Any] = {}

    @click.command()
    @sampling_options
    def command(**options: Any) -> None:
        given.update(sampling_arguments(options))

    result = CliRunner().invoke(command, list(arguments))
    assert result.exit_code == 0, result.output
    return given


@pytest.mark.parametrize("command", ["run", "chat"])
@pytest.mark.parametrize("info", PARAMETERS, ids=lambda info: info.name)
def test_every_sampling_parameter_is_an_option_whose_help_says_range_and_meaning(command: str, info: Any) -> None:
    option = option_of(command, info.name)
    assert "--" + info.name.replace("_", "-") in option.opts
    assert option.help is not None
    assert info.meaning in option.help
    assert info.range[1:] in option.help


def test_what_is_not_given_is_left_to_paddock() -> None:
    assert parsed() == {}


def test_options_of_every_kind_arrive_as_sampling_parameters_take_them() -> None:
    given = parsed(
        "--temperature", "0.5", "--top-k", "3", "--top-n-sigma", "-1", "--seed", str(2**64 - 1), "--ignore-eos",
        "--stop", "a,b", "--stop", "\n", "--stop-token-ids", "1,2", "--stop-token-ids", "9",
        "--logit-bias", "42=-inf", "--logit-bias", "7=2.5", "--sampler-order", "top_k,temperature", "--logprobs", "2",
    )  # fmt: skip
    assert given == {
        "temperature": 0.5,
        "top_k": 3,
        "top_n_sigma": -1.0,
        "seed": 2**64 - 1,
        "ignore_eos": True,
        "stop": ("a,b", "\n"),
        "stop_token_ids": (1, 2, 9),
        "logit_bias": ((42, float("-inf")), (7, 2.5)),
        "sampler_order": ("top_k", "temperature"),
        "logprobs": 2,
    }
    SamplingParameters.from_mapping(given)


def test_a_flag_can_be_denied_and_an_order_can_be_empty() -> None:
    assert parsed("--no-ignore-eos", "--sampler-order", "") == {"ignore_eos": False, "sampler_order": ()}


@pytest.mark.parametrize(
    "arguments",
    [("--logit-bias", "7"), ("--logit-bias", "x=1"), ("--stop-token-ids", "1,x"), ("--top-k", "many"), ("--nope",)],
    ids=str,
)
def test_what_cannot_be_read_is_wrong_usage(arguments: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, ["run", *arguments, "x"])
    assert result.exit_code == 2
    assert "Usage:" in result.stderr
    assert result.stdout == ""


def test_loading_options_name_fields_of_the_configuration() -> None:
    fields = {field.name for field in attrs.fields(ModelConfig)}
    assert set(LOAD_OPTIONS.values()) <= fields
    assert load_arguments({"n_ctx": 64, "threads": None, "gpu_layers": 0}) == {"n_ctx": 64, "n_gpu_layers": 0}


@pytest.mark.parametrize(
    ("name", "kind"), [("exactness", Exactness), ("exactness_recipe", ExactnessRecipe), ("isolation", Isolation)]
)
@pytest.mark.parametrize("command", ["run", "chat", "demo", "tree"])
def test_choices_are_those_of_the_configuration(command: str, name: str, kind: Any) -> None:
    choice = option_of(command, name).type
    assert isinstance(choice, click.Choice)
    assert tuple(choice.choices) == get_args(kind)


def test_shell_completion_knows_the_house_models() -> None:
    assert _HOUSE_MODELS == HOUSE_MODELS


def test_a_schema_is_a_json_object_or_a_file_and_a_grammar_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{"type": "integer"}')
    (tmp_path / "words.lark").write_text('start: "yes"')
    assert parsed("--json-schema", '{"type": "null"}') == {"json_schema": '{"type": "null"}'}
    assert parsed("--json-schema", str(tmp_path / "schema.json")) == {"json_schema": '{"type": "integer"}'}
    assert parsed("--grammar", str(tmp_path / "words.lark")) == {"grammar": 'start: "yes"'}
    assert parsed("--regex", "a|b") == {"regex": "a|b"}


def test_a_grammar_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["run", "cria", "x", "--grammar", str(tmp_path / "none.lark")])
    assert result.exit_code == 2
    assert "none.lark" in result.output
