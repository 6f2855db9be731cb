"""The llama-cpp-python wheel: compiled once for a user and a kind of machine, kept, and shared by all clones.

llama.cpp is compiled for the very CPU it is compiled on, and pip's own wheel cache knows neither the CPU nor
``CMAKE_ARGS``. Hence a cache of its own, with a key that holds everything a build depends on.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from environment.failure import SetupFailed
from environment.locking import exclusive
from environment.logged_process import clock, read_tail, run_logged, say
from environment.toolchain import check_space, check_toolchain, parallel_jobs, usable_cores, usable_memory

DISTRIBUTION = "llama-cpp-python"
BUILD_BYTES = 1_500_000_000
# Variables that change what CMake and the compilers produce.
BUILD_VARIABLES = (
    "CC",
    "CFLAGS",
    "CMAKE_ARGS",
    "CXX",
    "CXXFLAGS",
    "LDFLAGS",
    "SKBUILD_CMAKE_ARGS",
    "SOURCE_DATE_EPOCH",
)
# Of the hundred flags of a CPU, those that name instructions a compiler or ggml may choose.
CPU_FLAG = re.compile(
    r"^(sse|ssse|avx|fma|f16c|bmi|amx|popcnt|movbe|gfni|vaes|vpcl|asimd|fp|sve|sme|i8mm|bf16|neon|v$)"
)


def pinned_version(dependencies: list[str]) -> str:
    """The version that ``pyproject.toml`` pins llama-cpp-python to."""
    for requirement in dependencies:
        if found := re.fullmatch(rf"{DISTRIBUTION}\s*==\s*([\w.]+)", requirement.strip()):
            return found[1]
    raise SetupFailed(f"pyproject.toml does not pin {DISTRIBUTION} to one version with ==")


def cpu_flags(cpuinfo: str) -> list[str]:
    """The instruction-set flags of the first processor in ``/proc/cpuinfo``, sorted."""
    found = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    return sorted({flag for flag in found[1].split() if CPU_FLAG.match(flag)}) if found else []


def machine_facts() -> dict[str, object]:
    """What of this machine decides whether a build for it runs on it."""
    try:
        flags = cpu_flags(Path("/proc/cpuinfo").read_text())
    except OSError:
        flags = [platform.processor()]
    return {"platform": sysconfig.get_platform(), "libc": platform.libc_ver(), "cpu": flags}


def build_key(version: str, machine: Mapping[str, object], env: Mapping[str, str]) -> str:
    """Name of one build: the version, then a digest of machine and build variables.

    The interpreter is no part of it: the wheel holds a library for ctypes and is tagged py3-none.
    """
    variables = {name: env[name] for name in BUILD_VARIABLES if env.get(name)}
    facts = json.dumps([machine, variables], sort_keys=True)
    return f"{version}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"


def cache_folder(env: Mapping[str, str], home: Path, system: str = sys.platform) -> Path:
    """Where builds are kept: ``PADDOCK_BUILD_CACHE``, or ``paddock-build`` in the user's cache folder."""
    if chosen := env.get("PADDOCK_BUILD_CACHE"):
        return Path(chosen).absolute()
    if system == "darwin":
        return home / "Library" / "Caches" / "paddock-build"
    base = env.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else home / ".cache") / "paddock-build"


def cached_wheel(cache: Path, key: str) -> Path | None:
    """The finished wheel of this key, if there is one."""
    return next(iter(sorted((cache / key).glob("*.whl"))), None)


def forget(cache: Path, key: str) -> None:
    """Drop a build that does not work here."""
    shutil.rmtree(cache / key, ignore_errors=True)


def provide_wheel(
    *,
    python: Path,
    version: str,
    key: str,
    cache: Path,
    env: Mapping[str, str],
    log: Path,
    from_pip: bool = True,
) -> Path:
    """The wheel for ``key``, from the cache, or built now with ``python -m pip`` and kept.

    ``from_pip`` allows a wheel that pip compiled earlier; with build variables set it is never taken, since
    pip does not know what they were then. One build per key runs at a time: a second set-up waits.

    Raises:
        SetupFailed: a tool is missing, there is no room, or the build failed.
    """
    if wheel := cached_wheel(cache, key):
        return wheel
    with exclusive(cache / f"{key}.lock", f"{DISTRIBUTION} {version} is being compiled"):
        if wheel := cached_wheel(cache, key):
            return wheel
        check_toolchain(env)
        check_space(cache, BUILD_BYTES, f"compiling {DISTRIBUTION}")
        # What a killed build left behind; nobody else works on this key while the lock is held.
        for leftover in cache.glob(f"{key}.build-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(prefix=f"{key}.build-", dir=cache))
        try:
            return _build(python, version, cache / key, scratch, env, log, from_pip)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _build(
    python: Path, version: str, target: Path, scratch: Path, env: Mapping[str, str], log: Path, from_pip: bool
) -> Path:
    jobs = env.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(parallel_jobs(usable_cores(), usable_memory()))
    say(f"compiling {DISTRIBUTION} {version} ({jobs} jobs; 5 minutes on two cores; once, then it is reused)")
    started = time.monotonic()
    temporary, finished = scratch / "tmp", scratch / "wheel"
    temporary.mkdir()
    command = [str(python), "-m", "pip", "wheel", "--verbose", "--no-deps", "--wheel-dir", str(finished)]
    command += ["--no-binary", DISTRIBUTION, f"{DISTRIBUTION}=={version}"]
    if not from_pip or any(env.get(name) for name in BUILD_VARIABLES):
        command.insert(4, "--no-cache-dir")
    run_logged(
        command,
        activity=f"compiling {DISTRIBUTION} {version}",
        log=log,
        env={**env, "TMPDIR": str(temporary), "CMAKE_BUILD_PARALLEL_LEVEL": jobs},
    )
    reused = from_pip and "Using cached llama_cpp_python" in read_tail(log, 1 << 20)
    say("  pip had compiled it already" if reused else f"  compiled in {clock(time.monotonic() - started)}")
    if not list(finished.glob("*.whl")):
        raise SetupFailed(f"pip made no wheel of {DISTRIBUTION} {version} (log: {log})")
    finished.replace(target)
    wheel = cached_wheel(target.parent, target.name)
    assert wheel is not None
    return wheel


def works(python: Path, env: Mapping[str, str]) -> str | None:
    """None when the installed library loads and starts on this CPU; otherwise how it ended."""
    program = "import llama_cpp as l; l.llama_backend_init(); l.llama_print_system_info()"
    trial = subprocess.run(
        [python, "-c", program], stdin=subprocess.DEVNULL, capture_output=True, env=dict(env), check=False
    )
    if trial.returncode == 0:
        return None
    last = trial.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
    return last[0] if last else f"exit status {trial.returncode}"
