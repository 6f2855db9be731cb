"""What becomes of output that nobody can take."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from real_command import SECONDS, paddock_command, run_paddock


def with_redirections(redirections: str, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    command = ["sh", "-c", f'exec "$@" {redirections}', "sh", *paddock_command(*arguments)]
    return subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)


@pytest.mark.parametrize("arguments", [("models", "list"), ("models", "list", "--json"), ("--help",)], ids=" ".join)
def test_a_full_disk_is_one_line_on_stderr(arguments: tuple[str, ...]) -> None:
    ended = with_redirections("> /dev/full", *arguments)
    assert ended.returncode == 1
    assert ended.stderr.startswith(b"paddock: error: [Errno 28]")
    assert ended.stderr.count(b"\n") == 1


def test_a_program_started_without_stdin_stdout_and_stderr_works_all_the_same(greeting_model: Path) -> None:
    ended = with_redirections("<&- >&- 2>&-", "run", "--isolation", "thread", "-m", greeting_model, "x")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")


def test_help_into_a_closed_pipe_is_quiet() -> None:
    ended = with_redirections("| true", "run", "--help")
    assert ended.stderr == b""


def test_text_that_the_encoding_of_stdout_lacks_is_replaced(scripted_model: Callable[..., Path]) -> None:
    model = scripted_model("grün".encode())
    command = [
        "env",
        "PYTHONIOENCODING=ascii",
        *paddock_command("run", "-q", "--isolation", "thread", "-m", model, "x"),
    ]
    ended = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
    assert (ended.returncode, ended.stdout) == (0, b"gr?n\n")


def test_a_log_level_brings_log_lines_on_stderr(greeting_model: Path) -> None:
    ended = run_paddock("run", "-q", "-v", "--log-format", "json", "-m", greeting_model, "x")
    assert ended.stdout == b"Hello!\n"
    lines = ended.stderr.splitlines()
    assert len(lines) > 3
    assert all(line.startswith(b'{"') for line in lines)
