"""When a finished environment is reused, and when it is not."""

from __future__ import annotations

import tomllib
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from environment.stamp import (
    STAMP_NAME,
    Stamp,
    read_stamp,
    remove_stamp,
    requirements_digest,
    satisfies,
    with_extras_of,
    write_stamp,
)

ROOT = Path(__file__).resolve().parents[2]
STAMP = Stamp(location="/somewhere/.venv", requirements="d1", extras=("dev",), llama_build="0.3.36-aa")


def test_a_stamp_reads_back_as_it_was_written(tmp_path: Path) -> None:
    write_stamp(tmp_path, STAMP)
    assert read_stamp(tmp_path) == STAMP
    assert [path.name for path in tmp_path.iterdir()] == [STAMP_NAME]


def test_an_environment_without_a_stamp_satisfies_nothing(tmp_path: Path) -> None:
    assert read_stamp(tmp_path) is None
    assert not satisfies(None, STAMP)


def test_a_removed_stamp_is_gone_and_removing_twice_is_fine(tmp_path: Path) -> None:
    write_stamp(tmp_path, STAMP)
    remove_stamp(tmp_path)
    remove_stamp(tmp_path)
    assert read_stamp(tmp_path) is None


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": 1}', '{"format": 0, "location": "x"}', "null"])
def test_a_stamp_that_is_not_understood_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / STAMP_NAME).write_text(content)
    assert read_stamp(tmp_path) is None


def test_the_same_wish_is_satisfied_and_so_is_a_smaller_one() -> None:
    assert satisfies(STAMP, STAMP)
    assert satisfies(STAMP, replace(STAMP, extras=()))


@pytest.mark.parametrize(
    "change",
    [
        {"location": "/elsewhere/.venv"},
        {"requirements": "d2"},
        {"extras": ("dev", "docs")},
        {"llama_build": "0.3.36-bb"},
    ],
)
def test_any_other_wish_is_not(change: dict[str, Any]) -> None:
    assert not satisfies(STAMP, replace(STAMP, **change))


def test_extras_that_are_there_stay() -> None:
    wanted = replace(STAMP, extras=("docs",))
    assert with_extras_of(wanted, STAMP).extras == ("dev", "docs")
    assert with_extras_of(wanted, None) == wanted


def test_the_digest_follows_what_is_installed_and_nothing_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    digest = requirements_digest(project)
    settings = deepcopy(project)
    settings["tool"]["ruff"]["line-length"] = 60
    settings["project"]["description"] = "another"
    assert requirements_digest(settings) == digest
    for key in ("dependencies", "optional-dependencies", "scripts", "version"):
        changed = deepcopy(project)
        del changed["project"][key]
        assert requirements_digest(changed) != digest, key
