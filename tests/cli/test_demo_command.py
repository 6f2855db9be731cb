from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from real_command import assert_gone, at_terminal

from paddock.api.runtime import TreeNode
from paddock.cli import main
from paddock.cli.demo_prompts import demo_prompts
from paddock.cli.demonstration import Demonstration, Phase
from paddock.engine.requests.results import Completion, Usage


def demo(model: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["demo", "--isolation", "thread", "-m", str(model), *arguments])


def test_one_decode_step_serves_all_streams_and_alone_they_are_the_same(tiny_model_path: Path) -> None:
    result = demo(tiny_model_path, "--json", "--streams", "6", "-n", "40", "-v")
    assert result.exit_code == 0
    shown = json.loads(result.stdout)
    assert (shown["streams"], shown["identical"], shown["differing"]) == (6, True, [])
    assert (shown["restarts"], shown["recovery_seconds"]) == (0, None)
    assert shown["tokens_per_second"] > 0
    assert shown["tokens"] == 240 == shown["one_after_another"]["tokens"]
    assert 39 <= shown["decode_steps"] <= 60
    assert shown["one_after_another"]["decode_steps"] == 6 * 39
    assert len(shown["prompts"]) == 6
    assert shown["seeds"] == list(range(7, 13))


def test_the_tree_is_that_of_the_running_streams(tiny_model_path: Path) -> None:
    result = demo(tiny_model_path, "--streams", "3", "-n", "60")
    assert result.exit_code == 0
    for process in ("tiny-q8_0 (supervisor)", "machine", "requests (supervisor)", "port", "batch"):
        assert process in result.stdout
    requests = result.stdout.partition("requests")[2].partition("port")[0]
    assert requests.count("tiny-q8_0-") == 3
    assert "all 3 identical to the same requests one after another" in result.stdout


def test_more_streams_than_openings_and_bad_parameters(greeting_model: Path) -> None:
    shown = json.loads(demo(greeting_model, "--json", "--streams", "20", "-n", "8").stdout)
    assert (shown["streams"], shown["tokens"], len(set(shown["seeds"]))) == (20, 140, 20)
    refused = demo(greeting_model, "--json", "--temperature", "nan")
    assert refused.exit_code == 1
    assert json.loads(refused.stdout)["error"]["parameter"] == "temperature"


def test_every_stream_has_an_opening() -> None:
    assert len(set(demo_prompts(8))) == 8
    assert len(demo_prompts(100)) == 100


def phase(*texts: str) -> Phase:
    completions = tuple(
        Completion(
            model="m", text=text, token_ids=tuple(text.encode()), finish_reason="stop", stop=None, seed=7,
            usage=Usage(1, 0, len(text)), exactness="canonical",
        )
        for text in texts
    )  # fmt: skip
    return Phase(completions=completions, seconds=2.0, decode_steps=5, prefill_steps=2, worker_deaths=0)


@pytest.mark.parametrize(("exactness", "broken"), [("canonical", True), ("off", False)])
def test_a_stream_that_differs_is_named_and_fails_where_exactness_is_promised(exactness: str, broken: bool) -> None:
    demonstration = Demonstration(
        model="m", exactness=exactness, prompts=("p", "q"), at_once=phase("one", "two"), one_by_one=phase("one", "too"),
        tree=TreeNode("paddock", "supervisor", "running"),
    )  # fmt: skip
    assert demonstration.differing == (2,)
    assert demonstration.described()["identical"] is False
    assert demonstration.broken_promise is broken
    assert any("NOT identical: stream 2 of 2" in line for line in demonstration.lines())


def test_at_a_terminal_the_streams_stand_side_by_side_and_control_c_ends_it(endless_model: Path) -> None:
    with at_terminal("demo", "-m", endless_model, "--streams", "4", "-n", "3000", columns=100, lines=30) as terminal:
        terminal.wait_for(r"╭─ 1 (?:─)+╮╭─ 2 (?:─)+╮".encode())
        terminal.wait_for(rb"Hello wide world")
        workers = terminal.family()
        terminal.type(b"\x03")
        assert terminal.end() == 130
        assert terminal.shown.rpartition(b"\x1b[?25l")[2].count(b"\x1b[?25h") == 1, "the cursor is not shown again"
        assert len(workers) == 1
        assert_gone(workers)
