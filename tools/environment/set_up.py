"""The set-up from end to end: compare, lock, build, install, stamp."""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import os
import signal
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from environment import llama_wheel, virtual_environment
from environment.failure import SetupFailed
from environment.locking import exclusive
from environment.logged_process import clock, say
from environment.stamp import (
    Stamp,
    read_stamp,
    remove_stamp,
    requirements_digest,
    satisfies,
    with_extras_of,
    write_stamp,
)
from environment.toolchain import check_space, check_toolchain

INSTALLED_BYTES = 800_000_000


class Ended(BaseException):
    """SIGTERM or SIGHUP came; unwinds as Ctrl-C does."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


def main(arguments: list[str]) -> int:
    """Parse the command line, set up, return the exit status (1: failed and said why; 130: Ctrl-C)."""
    parser = argparse.ArgumentParser(prog="setup_environment.py", description="Set up the project's environment.")
    parser.add_argument("--extra", action="append", default=[], metavar="NAME", help="also install this extra")
    parser.add_argument("--project", type=Path, default=Path(__file__).resolve().parents[2], help="the project's root")
    parser.add_argument("--environment", type=Path, help="the virtual environment (.venv in the project's root)")
    options = parser.parse_args(arguments)
    project = options.project.resolve()
    environment = (options.environment or project / ".venv").absolute()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        set_up(project, environment, sorted(set(options.extra)), os.environ)
    except SetupFailed as failure:
        if failure.detail:
            sys.stderr.write(f"{failure.detail}\n\n")
        sys.stderr.write(f"set-up failed: {failure.line}\n")
        return 1
    except OSError as error:
        cause = "no space left on the disk" if error.errno == errno.ENOSPC else f"{error.strerror or error}"
        sys.stderr.write(f"set-up failed: {cause}{f': {error.filename}' if error.filename else ''}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("set-up interrupted; what it had begun is cleaned up\n")
        return 130
    except Ended as ended:
        sys.stderr.write(f"set-up ended by signal {ended.signal_number}; what it had begun is cleaned up\n")
        return 128 + ended.signal_number
    return 0


def set_up(project: Path, environment: Path, extras: list[str], process_env: Mapping[str, str]) -> None:
    """Bring ``environment`` to what ``pyproject.toml`` and ``extras`` ask for, if it is not."""
    table = read_project(project)
    for extra in extras:
        if extra not in table["project"].get("optional-dependencies", {}):
            raise SetupFailed(f"pyproject.toml has no extra {extra!r}")
    env = virtual_environment.clean_environment(process_env)
    version = llama_wheel.pinned_version(table["project"]["dependencies"])
    key = llama_wheel.build_key(version, llama_wheel.machine_facts(), env)
    wanted = Stamp(os.fspath(environment), requirements_digest(table), tuple(extras), key)
    if _ready(environment, wanted):
        return
    cache = llama_wheel.cache_folder(env, home_folder(project))
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupFailed(
            f"{cache} cannot be made ({error.strerror}); name another folder in PADDOCK_BUILD_CACHE"
        ) from error
    place = hashlib.sha256(os.fspath(environment).encode()).hexdigest()[:16]
    with exclusive(cache / "environments" / f"{place}.lock", f"{environment} is being set up"):
        if not _ready(environment, wanted):
            _work(project, environment, wanted, version, cache, env)


def home_folder(project: Path) -> Path:
    """The user's home; a user without one (a bare number, in a container) keeps builds in the clone."""
    try:
        return Path.home()
    except RuntimeError:
        return project / "build"


def read_project(project: Path) -> dict[str, Any]:
    try:
        return tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SetupFailed(f"{project} holds no pyproject.toml") from error
    except tomllib.TOMLDecodeError as error:
        raise SetupFailed(f"pyproject.toml is not valid TOML: {error}") from error


def _ready(environment: Path, wanted: Stamp) -> bool:
    return satisfies(read_stamp(environment), wanted) and virtual_environment.interpreter(environment).exists()


def _work(project: Path, environment: Path, wanted: Stamp, version: str, cache: Path, env: Mapping[str, str]) -> None:
    started = time.monotonic()
    found = read_stamp(environment)
    wanted = with_extras_of(wanted, found)
    key = wanted.llama_build
    log = project / ".setup.log"
    log.write_bytes(b"")
    say(f"setting up {environment} ({', '.join(wanted.extras) or 'no extras'}; log: {log})")
    if llama_wheel.cached_wheel(cache, key) is None:
        check_toolchain(env)  # before anything is made: a missing compiler is the likeliest fault
    check_space(environment, INSTALLED_BYTES, "the environment")
    with _discarded_unless_finished(environment):
        virtual_environment.provide_environment(environment, env, log)
        python = virtual_environment.interpreter(environment)
        for attempt in (1, 2):
            wheel = llama_wheel.provide_wheel(
                python=python, version=version, key=key, cache=cache, env=env, log=log, from_pip=attempt == 1
            )
            remove_stamp(environment)
            if attempt == 2 or (found is not None and found.llama_build != key):
                virtual_environment.replace_wheel(environment, wheel, env, log)
            virtual_environment.install_project(environment, project, wanted.extras, wheel, env, log)
            fault = llama_wheel.works(python, env)
            if fault is None:
                break
            llama_wheel.forget(cache, key)
            if attempt == 2:
                raise SetupFailed(f"llama-cpp-python {version} was built and does not start: {fault} (log: {log})")
            say(f"llama-cpp-python {version} from a cache does not start here ({fault}): compiling it anew")
        write_stamp(environment, wanted)
    say(f"set-up finished in {clock(time.monotonic() - started)}")


@contextlib.contextmanager
def _discarded_unless_finished(environment: Path) -> Iterator[None]:
    """Remove an environment that this block began and did not finish; leave one that was there before."""
    existed = environment.exists()
    try:
        yield
    except BaseException:
        if not existed:
            virtual_environment.discard(environment)
        raise


def _end(signal_number: int, frame: FrameType | None) -> NoReturn:
    raise Ended(signal_number)
