"""Which build of llama.cpp is whose: the key, the cache folder, the pin."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from environment.failure import SetupFailed
from environment.llama_wheel import (
    BUILD_VARIABLES,
    build_key,
    cache_folder,
    cached_wheel,
    cpu_flags,
    forget,
    machine_facts,
    pinned_version,
    provide_wheel,
)

ROOT = Path(__file__).resolve().parents[2]
MACHINE = {"platform": "linux-x86_64", "libc": ("glibc", "2.36"), "cpu": ["avx2", "fma"]}


def test_the_pin_is_read_from_the_project_itself() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert pinned_version(project["project"]["dependencies"]) == "0.3.36"


@pytest.mark.parametrize("dependencies", [[], ["llama-cpp-python"], ["llama-cpp-python>=0.3"], ["trio==0.30"]])
def test_an_unpinned_dependency_is_refused(dependencies: list[str]) -> None:
    with pytest.raises(SetupFailed, match="does not pin llama-cpp-python"):
        pinned_version(dependencies)


def test_the_key_names_the_version_and_is_the_same_each_time() -> None:
    key = build_key("0.3.36", MACHINE, {})
    assert key.startswith("0.3.36-")
    assert key == build_key("0.3.36", dict(MACHINE), {"HOME": "/elsewhere", "CMAKE_ARGS": ""})


@pytest.mark.parametrize("variable", BUILD_VARIABLES)
def test_a_build_variable_makes_another_key(variable: str) -> None:
    assert build_key("0.3.36", MACHINE, {variable: "x"}) != build_key("0.3.36", MACHINE, {})


@pytest.mark.parametrize(
    "change", [{"cpu": ["avx2"]}, {"platform": "linux-aarch64"}, {"libc": ("glibc", "2.31")}], ids=str
)
def test_another_machine_makes_another_key(change: dict[str, object]) -> None:
    assert build_key("0.3.36", {**MACHINE, **change}, {}) != build_key("0.3.36", MACHINE, {})


def test_cpu_flags_are_those_of_instruction_sets_in_a_fixed_order() -> None:
    x86 = "processor\t: 0\nflags\t\t: fpu sse2 avx512f md_clear avx2 fma bmi2\n\nflags\t\t: sse\n"
    assert cpu_flags(x86) == ["avx2", "avx512f", "bmi2", "fma", "fpu", "sse2"]
    assert cpu_flags("Features\t: fp asimd i8mm sve crc32\n") == ["asimd", "fp", "i8mm", "sve"]
    assert cpu_flags("") == []


def test_this_machine_has_facts() -> None:
    assert all(machine_facts()[name] for name in ("platform", "libc", "cpu"))


def test_the_cache_is_the_users_own_and_can_be_moved() -> None:
    home = Path("/somebody")
    assert cache_folder({}, home, "linux") == home / ".cache/paddock-build"
    assert cache_folder({}, home, "darwin") == home / "Library/Caches/paddock-build"
    assert cache_folder({"XDG_CACHE_HOME": "/caches"}, home, "linux") == Path("/caches/paddock-build")
    assert cache_folder({"XDG_CACHE_HOME": "relative"}, home, "linux") == home / ".cache/paddock-build"
    assert cache_folder({"PADDOCK_BUILD_CACHE": "/builds"}, home, "linux") == Path("/builds")


def test_a_kept_wheel_is_taken_without_compiler_or_python(tmp_path: Path) -> None:
    kept = tmp_path / "0.3.36-aa" / "llama_cpp_python-0.3.36-py3-none-any.whl"
    kept.parent.mkdir()
    kept.touch()
    taken = provide_wheel(
        python=tmp_path / "no-python",
        version="0.3.36",
        key="0.3.36-aa",
        cache=tmp_path,
        env={},
        log=tmp_path / "log",
    )
    assert taken == kept
    forget(tmp_path, "0.3.36-aa")
    assert cached_wheel(tmp_path, "0.3.36-aa") is None
