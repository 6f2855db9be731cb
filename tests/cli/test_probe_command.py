"""``paddock probe``: certificates of both recipes, and what each of them costs."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from paddock.cli import main


def probe(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["probe", "--threads", "1", "--n-ctx", "512", *map(str, arguments)])


def test_it_shows_checks_weights_and_cost_of_both_recipes(tiny_model_path: Path) -> None:
    result = probe("--json", "--cost-seconds", "0.1", tiny_model_path)
    assert result.exit_code == 0, result.stdout + result.stderr
    shown = json.loads(result.stdout)
    assert shown.keys() == {"certificate", "checks", "weights", "recipes", "cost"}
    assert (shown["certificate"]["recipe"], shown["certificate"]["holds"]) == ("canonical", True)
    assert shown["checks"]["neighbours"] == {"outcome": "passed", "tokens": 296, "detail": None}
    assert shown["weights"] == {"q8_0": 30}
    assert {name: recipe["holds"] for name, recipe in shown["recipes"].items()} == {
        "canonical": True, "invariant": True,
    }  # fmt: skip
    assert shown["cost"]["threads"] == 1
    points = {(point["kind"], point["rows"]) for point in shown["cost"]["points"]}
    assert points == {("prefill", 512), ("decode", 1), ("decode", 8), ("decode", 16)}
    for point in shown["cost"]["points"]:
        assert min(point["fast"], point["canonical"], point["invariant"]) > 0
    assert "measuring: decode of 16 sequences" in result.stderr


def test_without_measuring_it_says_in_words_what_holds(tiny_f16_model_path: Path) -> None:
    result = probe("--cost-seconds", "0", "-q", "--exactness-recipe", "invariant", tiny_f16_model_path)
    assert result.exit_code == 0, result.stdout + result.stderr
    assert "weights    30 f16" in result.stdout
    assert "canonical: the certificate holds" in result.stdout
    assert "invariant: the certificate holds" in result.stdout
    assert "tokens a second" not in result.stdout
    assert result.stderr == ""


def test_a_recipe_that_does_not_hold_fails_the_command(tiny_model_path: Path) -> None:
    result = probe("--json", "--cost-seconds", "0", "--probe-seconds", "0", tiny_model_path)
    assert result.exit_code == 1
    shown = json.loads(result.stdout)
    assert not shown["certificate"]["holds"]
    assert shown["checks"]["chunks"]["outcome"] == "not_run"
    assert shown["cost"]["points"] == []


def test_a_file_that_is_no_model_is_a_typed_error(tmp_path: Path) -> None:
    path = tmp_path / "no.gguf"
    path.write_bytes(b"")
    result = probe("--json", path)
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["type"] in ("NotGguf", "TruncatedGguf")


def test_a_time_that_is_no_number_is_wrong_usage() -> None:
    assert CliRunner().invoke(main, ["probe", "--cost-seconds", "nan"]).exit_code == 2
    assert CliRunner().invoke(main, ["cache", "gc", "--unused-days", "inf"]).exit_code == 2
