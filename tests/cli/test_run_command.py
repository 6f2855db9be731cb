from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from real_command import assert_gone, at_terminal, family, read_until, run_paddock, started

from paddock.cli import main

KEYS = {"text", "token_ids", "finish_reason", "seed", "usage", "exactness"}


def run(model: Path, *arguments: str, stdin: str | bytes | None = None) -> Result:
    """In this process, so that a test of what is said costs no start of an interpreter."""
    options = ["run", "--isolation", "thread", "--n-ctx", "256", "-m", str(model)]
    return CliRunner().invoke(main, [*options, *arguments], input=stdin)


def test_json_is_the_same_object_each_time(tiny_model_path: Path) -> None:
    arguments = ("run", "--json", "-m", tiny_model_path, "--max-tokens", "32", "--temperature", "0.8", "--seed", "7")
    first, second = (run_paddock(*arguments, "Once upon a time") for _ in range(2))
    assert first.returncode == 0
    assert first.stdout == second.stdout
    completion = json.loads(first.stdout)
    assert set(completion) == KEYS
    assert len(completion["token_ids"]) == 32 == completion["usage"]["completion_tokens"]
    assert set(completion["usage"]) == {"prompt_tokens", "cached_tokens", "completion_tokens"}
    assert (completion["finish_reason"], completion["seed"]) == ("length", 7)
    assert completion["exactness"] == "canonical"


def test_both_isolations_give_the_same_object(tiny_model_path: Path) -> None:
    arguments = ("run", "--json", "-m", tiny_model_path, "-n", "16", "--seed", "7", "--n-ctx", "256", "A llama")
    in_process = run_paddock(*arguments)
    assert run(tiny_model_path, "--json", "-n", "16", "--seed", "7", "A llama").stdout == in_process.stdout.decode()


def test_text_goes_to_stdout_and_all_else_to_stderr(greeting_model: Path) -> None:
    result = run(greeting_model, "--seed", "3", "Hi")
    assert (result.exit_code, result.stdout) == (0, "Hello!\n")
    assert "[stop: 7 tokens after a prompt of 3" in result.stderr
    assert "seed 3" in result.stderr


def test_quiet_says_nothing_but_the_text(greeting_model: Path) -> None:
    result = run(greeting_model, "-q", "Hi")
    assert (result.stdout, result.stderr) == ("Hello!\n", "")


def test_text_that_ends_its_line_gets_no_other_line_end(endless_model: Path) -> None:
    assert run(endless_model, "-q", "--stop", "w", "Hi").stdout == "Hello \n"
    assert run(endless_model, "-q", "-n", "1", "Hi").stdout == "H\n"


def test_a_seed_that_was_drawn_is_reported_and_gives_the_same_again(tiny_model_path: Path) -> None:
    first = json.loads(run(tiny_model_path, "--json", "-n", "8", "Hi").stdout)
    again = json.loads(run(tiny_model_path, "--json", "-n", "8", "--seed", str(first["seed"]), "Hi").stdout)
    assert again == first


def test_logprobs_come_when_asked_for(tiny_model_path: Path) -> None:
    completion = json.loads(run(tiny_model_path, "--json", "-n", "3", "--logprobs", "2", "Hi").stdout)
    assert set(completion) == KEYS | {"logprobs"}
    assert [row["token_id"] for row in completion["logprobs"]] == completion["token_ids"]
    assert [len(row["top"]) for row in completion["logprobs"]] == [2, 2, 2]


@pytest.mark.parametrize("arguments", [("-",), ()], ids=["dash", "nothing"])
def test_the_prompt_comes_from_stdin_without_its_last_line_end(
    arguments: tuple[str, ...], tiny_model_path: Path
) -> None:
    options = ("--json", "-n", "8", "--seed", "1")
    expected = run(tiny_model_path, *options, "Hi\nthere").stdout
    assert run(tiny_model_path, *options, *arguments, stdin="Hi\nthere\n").stdout == expected
    assert run(tiny_model_path, *options, *arguments, stdin="Hi\nthere\n\n").stdout != expected


@pytest.mark.parametrize(
    ("arguments", "stdin", "kind"),
    [
        (("",), None, "InvalidParameter"),
        (("-",), b"", "InvalidParameter"),
        (("-",), b"caf\xe9", "InvalidParameter"),
        (("\udcff",), None, "InvalidParameter"),
        (("--temperature", "nan", "x"), None, "InvalidParameter"),
        (("--top-p", "2", "x"), None, "InvalidParameter"),
        (("--max-tokens", "0", "x"), None, "InvalidParameter"),
        (("--max-tokens", "-1", "x"), None, "InvalidParameter"),
        (("--logit-bias", "999999=1", "x"), None, "InvalidParameter"),
        ((*(f"--stop={number}" for number in range(10_000)), "x"), None, "InvalidParameter"),
        (("--max-tokens", "256", "x"), None, "ContextOverflow"),
        (("-",), b"word " * 2_000_000, "ContextOverflow"),
        (("--deadline", "1e-9", "x"), None, "DeadlineExceeded"),
        (("--deadline", "0", "x"), None, "InvalidParameter"),
        (("--n-ctx", "5", "x"), None, "InvalidConfiguration"),
        (("--exactness", "required", "--probe-seconds", "0", "x"), None, "ExactnessNotProven"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_input_gives_its_typed_error(
    arguments: tuple[str, ...], stdin: bytes | None, kind: str, tiny_model_path: Path
) -> None:
    result = run(tiny_model_path, "--json", *arguments, stdin=stdin)
    assert result.exit_code == 1
    error = json.loads(result.stdout)["error"]
    assert error["type"] == kind
    assert error["message"]


def test_an_unknown_model_is_a_line_on_stderr() -> None:
    result = run(Path("no-such-model"), "x")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("paddock: error: model 'no-such-model'")
    assert result.stderr.endswith("[ModelNotFound]\n")


def test_bytes_on_the_command_line_that_are_no_utf8_are_refused(greeting_model: Path) -> None:
    ended = run_paddock("run", "--json", "--isolation", "thread", "-m", greeting_model, b"caf\xe9")
    assert ended.returncode == 1
    error = json.loads(ended.stdout)["error"]
    assert (error["type"], error["parameter"]) == ("InvalidParameter", "prompt")


def test_a_reader_that_has_seen_enough_ends_it_quietly(endless_model: Path) -> None:
    with started("run", "-q", "-m", endless_model, "x") as process:
        assert read_until(process.stdout, rb"Hello").startswith(b"Hello")
        workers = family(process)
        process.stdout.close()
        process.stdout = None
        errors = process.stderr.read()
        assert (process.wait(), errors) == (0, b"")
        assert len(workers) == 1
        assert_gone(workers)


def test_the_reply_of_a_model_cannot_steer_a_terminal_but_is_untouched_in_a_pipe(
    scripted_model: Callable[..., Path],
) -> None:
    model = scripted_model(b"\x1b[31mred")
    assert run(model, "-q", "x").stdout == "\x1b[31mred\n"
    with at_terminal("run", "-q", "--isolation", "thread", "-m", model, "x") as terminal:
        assert terminal.end() == 0
        assert "␛[31mred".encode() in terminal.shown


def test_endless_text_is_cut_at_max_tokens(endless_model: Path) -> None:
    assert run(endless_model, "-q", "-n", "40", "x").stdout.encode() == (b"Hello wide world. " * 3)[:40] + b"\n"
