"""What a compilation needs: compilers that work, CMake, room, and how many jobs the machine can bear."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from environment.failure import SetupFailed

MINIMUM_CMAKE = (3, 21)
BYTES_PER_JOB = 1 << 30  # the largest translation unit of ggml takes about 0.8 GB
HINT = "Debian, Ubuntu: apt install build-essential cmake; macOS: xcode-select --install, brew install cmake"

C_PROGRAM = "#include <stdio.h>\nint main(void) { return 0; }\n"
CXX_PROGRAM = "#include <vector>\n#include <thread>\nint main() { return std::vector<int>{}.size(); }\n"

Which = Callable[[str], "str | None"]


def find_compiler(variable: str, names: tuple[str, ...], env: Mapping[str, str], which: Which) -> str | None:
    """The compiler CMake would take: what the environment names, else the first of ``names`` on the path."""
    if chosen := env.get(variable, "").split():
        return which(chosen[0])
    return next((found for name in names if (found := which(name))), None)


def missing_tools(env: Mapping[str, str], which: Which) -> str | None:
    """One line that names what is missing of C compiler, C++ compiler and CMake; None when all are there."""
    missing = []
    if find_compiler("CC", ("cc", "gcc", "clang"), env, which) is None:
        missing.append(f"a C compiler ({env['CC']}, from CC)" if env.get("CC") else "a C compiler (cc, gcc or clang)")
    if find_compiler("CXX", ("c++", "g++", "clang++"), env, which) is None:
        missing.append(
            f"a C++ compiler ({env['CXX']}, from CXX)" if env.get("CXX") else "a C++ compiler (c++, g++ or clang++)"
        )
    if which("cmake") is None:
        missing.append("CMake (cmake)")
    if not missing:
        return None
    verb = "is" if len(missing) == 1 else "are"
    return f"{' and '.join(missing)} {verb} needed to compile llama.cpp and not found; {HINT}"


def cmake_version(output: str) -> tuple[int, int] | None:
    """(major, minor) from what ``cmake --version`` prints."""
    found = re.search(r"cmake version (\d+)\.(\d+)", output)
    return (int(found[1]), int(found[2])) if found else None


def check_toolchain(env: Mapping[str, str], which: Which = shutil.which) -> None:
    """Find the tools and try them.

    Raises:
        SetupFailed: one is missing, too old, or cannot compile and link a program of three lines.
    """
    if problem := missing_tools(env, which):
        raise SetupFailed(problem)
    version = cmake_version(_output(["cmake", "--version"], env))
    if version is None:
        raise SetupFailed(f"cmake --version does not answer; {HINT}")
    if version < MINIMUM_CMAKE:
        needed = ".".join(map(str, MINIMUM_CMAKE))
        raise SetupFailed(f"CMake {version[0]}.{version[1]} is too old: {needed} or newer is needed")
    for variable, names, language, program in (
        ("CC", ("cc", "gcc", "clang"), "c", C_PROGRAM),
        ("CXX", ("c++", "g++", "clang++"), "c++", CXX_PROGRAM),
    ):
        compiler = find_compiler(variable, names, env, which)
        assert compiler is not None
        trial = subprocess.run(
            [compiler, "-x", language, "-", "-o", os.devnull],
            input=program.encode(),
            capture_output=True,
            env=dict(env),
            check=False,
        )
        if trial.returncode != 0:
            raise SetupFailed(
                f"{compiler} cannot compile and link a small {language.upper()} program; {HINT}",
                trial.stderr.decode("utf-8", "replace").strip(),
            )


def check_space(folder: Path, needed: int, purpose: str) -> None:
    """Raise SetupFailed when the file system of ``folder`` (it need not exist) has less than ``needed``."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise SetupFailed(
            f"{purpose} needs {needed / 1e9:.1f} GB in {folder}, and {free / 1e9:.1f} GB are free; make room"
        )


def parallel_jobs(cores: int, memory_bytes: int) -> int:
    """Compiler jobs at once: as many as there are cores, while each has the memory it needs; at least one."""
    return max(1, min(cores, memory_bytes // BYTES_PER_JOB))


def usable_cores() -> int:
    """Cores this process may use: its affinity, cut by the container's quota (which ninja does not see)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, max(1, -(-int(quota) // int(period))))
    return cores


def usable_memory() -> int:
    """Bytes of memory to count on: the machine's, cut by the container's limit."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return memory


def _output(command: list[str], env: Mapping[str, str]) -> str:
    try:
        answer = subprocess.run(command, capture_output=True, env=dict(env), stdin=subprocess.DEVNULL, check=False)
    except OSError:
        return ""
    return answer.stdout.decode("utf-8", "replace")
