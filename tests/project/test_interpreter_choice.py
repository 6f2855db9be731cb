"""The set-up's entry: which Python it takes, and what it says of those that it does not."""

from __future__ import annotations

import sys

import pytest
from setup_environment import find_interpreter, judge, probe


@pytest.mark.parametrize("minor", [11, 12, 13])
def test_a_supported_python_with_venv_is_taken(minor: int) -> None:
    assert judge(0, f"3 {minor}\n") is None


@pytest.mark.parametrize("version", ["2 7", "3 10", "3 14", "4 0"])
def test_another_python_is_refused_by_its_version(version: str) -> None:
    assert judge(0, version) == f"is Python {version.replace(' ', '.')}"


def test_a_python_without_venv_is_refused_with_the_package_that_brings_it() -> None:
    reason = judge(1, "3 12\n")
    assert reason is not None
    assert "python3.12-venv" in reason


@pytest.mark.parametrize("output", ["", "command not found", "3", "3 x"])
def test_what_does_not_answer_as_a_python_does_not_run(output: str) -> None:
    assert judge(127, output) == "does not run"


def test_this_interpreter_is_usable_and_a_missing_one_is_not(tmp_path: object) -> None:
    assert probe(sys.executable) is None
    assert probe(f"{tmp_path}/python3.12") == "does not run"


def test_the_running_interpreter_comes_first() -> None:
    assert find_interpreter(probe=lambda _: None, which=lambda name: f"/bin/{name}") == (sys.executable, "")


def test_the_newest_usable_interpreter_on_the_path_is_found_when_the_running_one_is_not() -> None:
    verdicts = {"/bin/python3.13": "does not run", "/bin/python3.12": None}
    found, _ = find_interpreter(lambda path: verdicts.get(path, "is Python 3.9"), lambda name: f"/bin/{name}")
    assert found == "/bin/python3.12"


def test_without_a_usable_interpreter_one_line_says_what_was_found() -> None:
    found, problem = find_interpreter(lambda _: "is Python 3.9", lambda name: f"/bin/{name}")
    assert found is None
    assert problem.startswith("Python 3.11, 3.12 or 3.13 is needed; ")
    assert "/bin/python3.11 is Python 3.9" in problem
    assert "\n" not in problem
