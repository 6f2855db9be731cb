from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from real_command import assert_gone, at_terminal, run_paddock


def chat(*arguments: str | Path, stdin: bytes) -> subprocess.CompletedProcess[bytes]:
    """The real command reading a pipe; the engine runs in a thread, which starts sooner than a process."""
    return run_paddock("chat", "--isolation", "thread", *arguments, stdin=stdin)


def test_each_line_of_a_pipe_is_a_turn(greeting_model: Path) -> None:
    ended = chat(greeting_model, "-q", stdin=b"Hi\n\nAgain\n")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"Hello!\nHello!\n", b"")


def test_json_is_one_object_with_all_turns_and_the_same_each_time(tiny_model_path: Path) -> None:
    arguments = (tiny_model_path, "--json", "--seed", "7", "-n", "8", "--system", "Be brief.")
    first, second = (chat(*arguments, stdin=b"Hi\n/help\nAgain\n") for _ in range(2))
    assert first.returncode == 0
    assert first.stdout == second.stdout
    conversation = json.loads(first.stdout)
    assert conversation["system"] == "Be brief."
    assert [turn["user"] for turn in conversation["turns"]] == ["Hi", "Again"]
    one, two = conversation["turns"]
    assert len(one["token_ids"]) == 8
    assert two["usage"]["prompt_tokens"] > one["usage"]["prompt_tokens"]
    assert b"/reset" in first.stderr


def test_reset_and_system_begin_anew_and_save_writes_what_there_is(tiny_model_path: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved.json"
    script = f"Hi\n/save {saved}\n/reset\nHi\n/system Short.\n/system\nHi\n/nonsense\n/save\n/quit\nnever said\n"
    ended = chat(tiny_model_path, "--json", "-q", "--seed", "7", "-n", "8", stdin=script.encode())
    assert ended.returncode == 0
    (before,) = json.loads(saved.read_bytes())["turns"]
    (after,) = json.loads(ended.stdout)["turns"]
    assert before == after
    assert b"no command /nonsense" in ended.stderr
    assert b"/save needs a file name" in ended.stderr


def test_a_turn_that_fails_has_its_error_and_the_next_one_works(greeting_model: Path) -> None:
    script = b"x" * 5000 + b"\ncaf\xe9\nHi\n"
    ended = chat(greeting_model, "--json", stdin=script)
    assert ended.returncode == 1
    turns = json.loads(ended.stdout)["turns"]
    assert [turn.get("error", {}).get("type") for turn in turns] == ["ContextOverflow", "InvalidParameter", None]
    assert turns[2]["assistant"] == "Hello!"


def test_a_model_without_a_chat_template_is_refused(scripted_model: Callable[..., Path]) -> None:
    ended = chat(scripted_model(b"x", chat_template=None), "--json", stdin=b"Hi\n")
    assert ended.returncode == 1
    assert json.loads(ended.stdout)["error"]["type"] == "ChatTemplateMissing"


def test_at_a_terminal_control_c_cancels_the_reply_and_control_d_leaves(endless_model: Path) -> None:
    with at_terminal("chat", endless_model) as terminal:
        terminal.wait_for(rb"> ")
        workers = terminal.family()
        terminal.type(b"Hi\r")
        terminal.wait_for(rb"Hello wide world")
        terminal.type(b"\x03")
        terminal.wait_for(rb"cancelled[^\n]*\n[^\n]*> ")
        terminal.type(b"/help\r")
        terminal.wait_for(rb"/reset.*forget")
        terminal.wait_for(rb"> ")
        terminal.type(b"Hi\r")
        terminal.wait_for(rb"Hello wide world")
        terminal.type(b"\x03")
        terminal.wait_for(rb"cancelled[^\n]*\n[^\n]*> ")
        terminal.type(b"\x04")
        assert terminal.end() == 0
        assert len(workers) == 1
        assert_gone(workers)


def test_at_a_terminal_control_c_at_the_prompt_leaves_with_130(greeting_model: Path) -> None:
    with at_terminal("chat", greeting_model) as terminal:
        terminal.wait_for(rb"> ")
        workers = terminal.family()
        terminal.type(b"half a line\x03")
        assert terminal.end() == 130
        assert len(workers) == 1
        assert_gone(workers)


def test_a_session_goes_on_in_the_next_command(tiny_model_path: Path) -> None:
    arguments = (tiny_model_path, "--json", "-q", "--seed", "7", "-n", "8")
    whole = json.loads(chat(*arguments, "--session", "whole", stdin=b"Hi\nAgain\nAnd again\n").stdout)
    assert (whole["session"], whole["earlier_turns"]) == ("whole", 0)
    first = json.loads(chat(*arguments, "--session", "parts", stdin=b"Hi\n").stdout)
    others = json.loads(chat(*arguments, "--session", "parts", stdin=b"Again\nAnd again\n").stdout)
    assert others["earlier_turns"] == 1

    def without_cache(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [turn | {"usage": turn["usage"] | {"cached_tokens": 0}} for turn in turns]

    assert without_cache(first["turns"] + others["turns"]) == without_cache(whole["turns"])
    elsewhere = json.loads(chat(*arguments, "--session", "parts", "--tenant", "someone", stdin=b"Hi\n").stdout)
    assert elsewhere["earlier_turns"] == 0
    reset = chat(*arguments, "--session", "parts", stdin=b"/system Be brief.\n/reset\nHi\n")
    assert b"keeps its system message" in reset.stderr
    assert without_cache(json.loads(reset.stdout)["turns"]) == without_cache(first["turns"])


def test_a_tenant_without_a_session_is_refused(greeting_model: Path) -> None:
    ended = chat(greeting_model, "--tenant", "someone", stdin=b"Hi\n")
    assert ended.returncode == 2
    assert b"--session" in ended.stderr


def test_an_empty_tenant_is_nobody_and_not_the_default_one(greeting_model: Path) -> None:
    ended = chat(greeting_model, "--session", "one", "--tenant", "", "--json", stdin=b"Hi\n")
    assert ended.returncode == 1
    assert json.loads(ended.stdout)["error"]["parameter"] == "tenant"
