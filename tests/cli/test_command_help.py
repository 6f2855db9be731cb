from __future__ import annotations

import re
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from real_command import run_paddock

import paddock
from paddock.cli import main
from paddock.cli.command import PaddockCommand

LEAVES = [(name,) for name in ("demo", "run", "chat", "tree", "completion")] + [("models", "show"), ("models", "list")]


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_has_help_with_examples_that_name_it(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, [*path, "--help"], prog_name="paddock")
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: paddock " + " ".join(path))
    examples = result.stdout.partition("Examples:")[2]
    assert "paddock " + " ".join(path) in examples


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_option_says_what_it_does(path: tuple[str, ...]) -> None:
    command: click.Command = main
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    assert isinstance(command, PaddockCommand)
    assert [p.name for p in command.params if isinstance(p, click.Option) and not p.help] == []


def test_the_overview_lists_every_command_and_the_exit_codes() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert set(main.commands) <= set(re.findall(r"^  (\w+) ", result.stdout, re.MULTILINE))
    assert "130" in result.stdout


def test_the_version_is_that_of_the_package() -> None:
    assert CliRunner().invoke(main, ["--version"]).stdout == f"paddock {paddock.__version__}\n"


@pytest.mark.parametrize("arguments", [["nope"], ["run", "--nope"], ["run", "a", "b"], ["demo", "--streams", "0"]])
def test_wrong_usage_is_told_on_stderr_with_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error:" in result.stderr


def test_help_and_facts_load_neither_llama_cpp_nor_an_event_loop() -> None:
    script = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "import paddock.cli, paddock.cli.model_facts\n"
        "assert CliRunner().invoke(paddock.cli.main, ['run', '--help']).exit_code == 0\n"
        "print(sorted({'llama_cpp', 'trio', 'rich', 'supervisors'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_of_a_shell_asks_paddock(shell: str) -> None:
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0
    assert "_PADDOCK_COMPLETE" in result.stdout
    assert f"{shell}_complete" in result.stdout


def test_completing_a_model_gives_house_models_and_files() -> None:
    environment = {"_PADDOCK_COMPLETE": "bash_complete", "COMP_WORDS": "paddock chat c", "COMP_CWORD": "2"}
    result = CliRunner().invoke(main, [], prog_name="paddock", env=environment)
    assert result.stdout == "plain,cria\nfile,c\n"


def test_python_m_paddock_is_paddock() -> None:
    ended = run_paddock("--version")
    assert (ended.returncode, ended.stdout) == (0, f"paddock {paddock.__version__}\n".encode())
