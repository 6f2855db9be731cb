"""The plain script."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_the_script_answers_on_stdout_and_reports_on_stderr() -> None:
    command = [sys.executable, str(EXAMPLES / "script.py"), "Hello!", "--max-tokens", "24", "--seed", "7"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr.splitlines()[1:]) == (0, [])
    assert ended.stdout.strip()
    assert ended.stderr.endswith("seed 7\n")


def test_the_script_streams_the_whole_reply(
    example: Callable[[str], ModuleType],
    scripted_model: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = scripted_model(b"I am a script.")
    assert example("script").main(["Who", "are", "you?", "--model", str(path)]) == 0
    assert capsys.readouterr().out == "I am a script.\n"


def test_an_error_is_one_line_that_says_what_to_do(
    example: Callable[[str], ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert example("script").main(["Hello", "--model", str(tmp_path / "absent.gguf")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "absent.gguf" in captured.err
    assert len(captured.err.splitlines()) == 1
