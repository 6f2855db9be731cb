"""What the set-up says of a machine that lacks something."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from environment.failure import SetupFailed
from environment.toolchain import check_space, check_toolchain, cmake_version, missing_tools, parallel_jobs
from hypothesis import given
from hypothesis import strategies as st


def path_with(*names: str) -> Callable[[str], str | None]:
    return lambda name: f"/usr/bin/{name}" if name in names else None


def test_nothing_is_missing_with_any_of_the_known_compilers() -> None:
    assert missing_tools({}, path_with("gcc", "g++", "cmake")) is None
    assert missing_tools({}, path_with("clang", "clang++", "cmake")) is None


@pytest.mark.parametrize(
    ("present", "named", "unnamed"),
    [
        (("cc", "cmake"), "a C++ compiler (c++, g++ or clang++) is needed", "CMake (cmake)"),
        (("c++", "cmake"), "a C compiler (cc, gcc or clang) is needed", "a C++ compiler"),
        (("cc", "c++"), "CMake (cmake) is needed", "compiler ("),
    ],
)
def test_a_missing_tool_is_named_in_one_line(present: tuple[str, ...], named: str, unnamed: str) -> None:
    line = missing_tools({}, path_with(*present))
    assert line is not None
    assert named in line
    assert unnamed not in line
    assert "apt install build-essential cmake" in line
    assert "\n" not in line


def test_all_that_is_missing_is_named_at_once() -> None:
    line = missing_tools({}, path_with())
    assert line is not None
    assert line.index("a C compiler") < line.index("a C++ compiler") < line.index("CMake")


def test_a_compiler_that_the_environment_names_is_the_one_looked_for() -> None:
    line = missing_tools({"CXX": "nonesuch -O2"}, path_with("cc", "c++", "cmake"))
    assert line is not None
    assert "a C++ compiler (nonesuch -O2, from CXX)" in line
    assert missing_tools({"CXX": "clang++ -O2"}, path_with("cc", "clang++", "cmake")) is None


def script(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def toolbox(tmp_path: Path) -> Path:
    """A folder of tools that answer as healthy ones do."""
    script(tmp_path, "cc", "exit 0")
    script(tmp_path, "c++", "exit 0")
    script(tmp_path, "cmake", "echo cmake version 3.28.1")
    return tmp_path


def check(toolbox: Path) -> None:
    env = {"PATH": f"{toolbox}:{os.environ['PATH']}"}
    check_toolchain(env, lambda name: str(toolbox / name) if (toolbox / name).exists() else None)


def test_healthy_tools_pass(toolbox: Path) -> None:
    check(toolbox)


def test_a_compiler_that_cannot_compile_is_named_with_what_it_said(toolbox: Path) -> None:
    script(toolbox, "c++", "echo vector: No such file or directory >&2; exit 1")
    with pytest.raises(SetupFailed, match=r"c\+\+ cannot compile and link a small C\+\+ program") as caught:
        check(toolbox)
    assert caught.value.detail == "vector: No such file or directory"


def test_an_old_cmake_is_named_with_the_version_that_is_needed(toolbox: Path) -> None:
    script(toolbox, "cmake", "echo cmake version 3.16.3")
    with pytest.raises(SetupFailed, match=r"CMake 3\.16 is too old: 3\.21 or newer"):
        check(toolbox)


def test_a_cmake_that_does_not_answer_is_named(toolbox: Path) -> None:
    script(toolbox, "cmake", "exit 1")
    with pytest.raises(SetupFailed, match="cmake --version does not answer"):
        check(toolbox)


def test_the_cmake_version_is_read_from_its_first_line() -> None:
    assert cmake_version("cmake version 3.25.1\n\nCMake suite maintained by Kitware") == (3, 25)
    assert cmake_version("") is None


def test_too_little_room_is_named_with_both_numbers(tmp_path: Path) -> None:
    check_space(tmp_path / "not" / "there" / "yet", 1, "the environment")
    with pytest.raises(SetupFailed, match=r"the environment needs 1000000000\.0 GB in .* GB are free"):
        check_space(tmp_path, 10**18, "the environment")


@given(cores=st.integers(1, 256), memory=st.integers(0, 1 << 40))
def test_jobs_fit_cores_and_memory_and_there_is_always_one(cores: int, memory: int) -> None:
    jobs = parallel_jobs(cores, memory)
    assert 1 <= jobs <= cores
    assert jobs == 1 or jobs << 30 <= memory
