"""What the repository promises on paper holds, and nothing in it names the machine it was written on."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (".ci", "bench", "docs", "examples", "src", "supervisors", "tests", "tools")
TEXT = {".c", ".h", ".j2", ".json", ".md", ".py", ".sh", ".toml", ".txt", ".yml", ".yaml", ""}
PAPERS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

# Written in pieces, so that this file does not hold what it forbids.
MACHINE_PATHS = re.compile("|".join(["/" + "work/", "/" + "root/", "/" + "home/[a-z]", "/" + "tmp/[a-z]+-?check"]))
UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|lorem " + r"ipsum)\b")


def text_files() -> Iterator[Path]:
    yield from (path for path in ROOT.iterdir() if path.is_file() and path.suffix in TEXT and path.name[0] != ".")
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            inner = path.relative_to(ROOT / folder).parts
            cached = any(part == "__pycache__" or part.startswith(".") for part in inner)
            if path.is_file() and path.suffix in TEXT and not cached:
                yield path


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    found = []
    for path in text_files():
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    return found


def code_of(paper: Path) -> str:
    """Fenced blocks that are no Python, and code spans: where commands stand."""
    text = paper.read_text(encoding="utf-8")
    fenced = re.findall(r"^```(?!python)[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return "\n".join([*fenced, *re.findall(r"`([^`\n]+)`", text)])


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def test_no_file_names_a_path_of_the_machine_it_was_written_on() -> None:
    assert lines_with(MACHINE_PATHS) == []


def test_no_file_is_marked_unfinished() -> None:
    assert lines_with(UNFINISHED) == []


def test_the_makefile_has_the_targets_that_the_project_promises() -> None:
    assert {"bench", "clean", "demo", "docs", "help", "lint", "test", "test-slow"} <= make_targets()


@pytest.mark.parametrize("paper", PAPERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_make_command_in_the_docs_exists(paper: Path) -> None:
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)", code_of(paper)))
    assert named <= make_targets()


@pytest.mark.parametrize("paper", PAPERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_paddock_command_in_the_docs_exists(paper: Path) -> None:
    named = set(re.findall(r"(?:^|\$ |bin/)paddock ([a-z]+)", code_of(paper), re.MULTILINE))
    if named:
        command = import_module("paddock.cli").main
        assert isinstance(command, click.Group)
        assert named <= set(command.commands)


def test_the_readme_names_the_two_commands_that_do_everything() -> None:
    assert {"make demo", "make test"} <= set(re.findall(r"make [a-z]+", code_of(ROOT / "README.md")))


def test_help_lists_the_targets_and_what_they_do() -> None:
    ended = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.search(r"^make demo +many streams", ended.stdout, re.MULTILINE)
    assert re.search(r"^make test +the test suite", ended.stdout, re.MULTILINE)


def test_the_ci_run_can_be_started_and_is_valid_bash() -> None:
    run = ROOT / ".ci" / "run"
    assert os.access(run, os.X_OK)
    subprocess.run(["bash", "-n", run], check=True)


@pytest.mark.parametrize("broken", ["test", "lint"])
def test_the_ci_run_fails_when_a_part_of_it_fails(broken: str, tmp_path: Path) -> None:
    """Against a Makefile of two targets, one of which fails; the other one still runs."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci" / "run").write_bytes((ROOT / ".ci" / "run").read_bytes())
    recipes = {name: "false" if name == broken else f"echo ran {name}" for name in ("test", "lint")}
    (tmp_path / "Makefile").write_text("".join(f"{name}:\n\t@{recipe}\n" for name, recipe in recipes.items()))
    ended = subprocess.run(["bash", ".ci/run"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert f"failed: make {broken}" in ended.stdout
    assert ended.stdout.count("ran ") == 1


def test_the_changelog_has_a_place_for_what_is_not_released() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[Unreleased\]$", changelog, re.MULTILINE)


def test_what_is_tested_and_linted_with_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    tools = ("pytest", "hypothesis", "ruff", "mypy", "pyright", "import-linter", "sybil")
    pinned = {re.split(r"[\[=<>]", line)[0] for line in project["optional-dependencies"]["dev"] if "==" in line}
    assert set(tools) <= pinned
