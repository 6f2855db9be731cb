"""The virtual environment itself: judged, made, and filled."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from environment.failure import SetupFailed
from environment.logged_process import run_logged

# Each of these would make pip or Python work somewhere else than in the environment; make's own are meant for
# the make that runs this set-up, and would confuse one that compiles llama.cpp.
MISLEADING_VARIABLES = (
    "MAKEFLAGS",
    "MAKELEVEL",
    "MFLAGS",
    "PIP_PREFIX",
    "PIP_TARGET",
    "PIP_USER",
    "PYTHONHOME",
    "PYTHONPATH",
    "__PYVENV_LAUNCHER__",
)
SUPPORTED = ((3, 11), (3, 12), (3, 13))


def clean_environment(env: Mapping[str, str]) -> dict[str, str]:
    """``env`` without what would lead pip astray; pip never asks questions."""
    kept = {name: value for name, value in env.items() if name not in MISLEADING_VARIABLES}
    return {**kept, "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def interpreter(environment: Path) -> Path:
    return environment / "bin" / "python"


def python_version(environment: Path) -> tuple[int, int] | None:
    """(major, minor) of the environment's interpreter; None when there is none that runs."""
    try:
        answer = subprocess.run(
            [interpreter(environment), "-c", "import sys; print(*sys.version_info[:2])"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        major, minor = answer.stdout.split()
        return int(major), int(minor)
    except (OSError, ValueError):
        return None


def provide_environment(environment: Path, env: Mapping[str, str], log: Path) -> bool:
    """Make the environment unless it is there; True when it was made now.

    One whose interpreter has gone (an upgrade of the system's Python does that) is made anew.

    Raises:
        SetupFailed: the folder is something else, holds an unsupported Python, or making it failed.
    """
    if environment.exists():
        if not (environment / "pyvenv.cfg").is_file() and any(environment.iterdir()):
            raise SetupFailed(f"{environment} is not a virtual environment; move it away")
        version = python_version(environment)
        if version in SUPPORTED:
            return False
        if version is not None:
            raise SetupFailed(
                f"{environment} holds Python {version[0]}.{version[1]}, and 3.11 to 3.13 are supported; "
                "remove it (make distclean) and try again"
            )
    run_logged(
        [sys.executable, "-m", "venv", "--clear", environment],
        activity=f"making {environment.name} with Python {sys.version_info[0]}.{sys.version_info[1]}",
        log=log,
        env=env,
    )
    return True


def discard(environment: Path) -> None:
    shutil.rmtree(environment, ignore_errors=True)


def install_project(
    environment: Path, project: Path, extras: Iterable[str], wheel: Path, env: Mapping[str, str], log: Path
) -> None:
    """Install the wheel and, in place, the project with ``extras``. Raises SetupFailed when pip does."""
    wanted = ",".join(extras)
    requirement = f"{os.fspath(project)}[{wanted}]" if wanted else os.fspath(project)
    run_logged(
        [interpreter(environment), "-m", "pip", "install", wheel, "--editable", requirement],
        activity="installing the dependencies",
        log=log,
        env=env,
    )


def replace_wheel(environment: Path, wheel: Path, env: Mapping[str, str], log: Path) -> None:
    """Put this very build in, also over one of the same version. Raises SetupFailed when pip fails."""
    run_logged(
        [interpreter(environment), "-m", "pip", "install", "--force-reinstall", "--no-deps", wheel],
        activity="installing llama-cpp-python",
        log=log,
        env=env,
    )
