"""Type checkers know what calls return, and refuse what is marked ``# refused`` in `typing/`, no more and no less."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "typing"
ROOT = Path(__file__).parents[2]
FILES = sorted(HERE.glob("*.py"))


def marked() -> set[tuple[str, int]]:
    return {
        (path.name, number)
        for path in FILES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if line.endswith("# refused")
    }


def mypy() -> set[tuple[str, int]]:
    command = [sys.executable, "-m", "mypy", "--output", "json", "--config-file", "pyproject.toml", *map(str, FILES)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {(Path(error["file"]).name, error["line"]) for error in found if error["severity"] == "error"}


def pyright() -> set[tuple[str, int]]:
    command = [sys.executable, "-m", "pyright", "--outputjson", *map(str, FILES)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout)["generalDiagnostics"]
    return {
        (Path(error["file"]).name, error["range"]["start"]["line"] + 1)
        for error in found
        if error["severity"] == "error"
    }


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_exactly_what_is_marked_is_refused(checker: object) -> None:
    assert len(marked()) == 12
    assert callable(checker)
    assert checker() == marked()
