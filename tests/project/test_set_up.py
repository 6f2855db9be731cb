"""The set-up as a program: its exit status, its one line, what it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from environment.locking import exclusive
from environment.virtual_environment import MISLEADING_VARIABLES, clean_environment

ROOT = Path(__file__).resolve().parents[2]
PROJECT = '[project]\nname = "x"\nversion = "1"\ndependencies = ["llama-cpp-python==0.3.36"]\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(PROJECT)
    return folder


def command(project: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "tools/setup_environment.py"), "--project", str(project), *arguments]


def environment_variables(project: Path, path: str = "") -> dict[str, str]:
    return {"PATH": path, "HOME": str(project.parent), "PADDOCK_BUILD_CACHE": str(project.parent / "builds")}


def set_up(project: Path, *arguments: str, path: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(project, *arguments),
        env=environment_variables(project, path),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def test_a_machine_without_compiler_and_cmake_is_told_in_one_line_before_anything_is_made(
    project: Path,
) -> None:
    ended = set_up(project)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("set-up failed: a C compiler (cc, gcc or clang) and a C++ compiler")
    assert "CMake (cmake)" in ended.stderr
    assert not (project / ".venv").exists()


def test_an_unknown_extra_is_named(project: Path) -> None:
    ended = set_up(project, "--extra", "nonesuch")
    assert (ended.returncode, ended.stderr) == (1, "set-up failed: pyproject.toml has no extra 'nonesuch'\n")


def test_a_cache_folder_that_cannot_be_made_is_named_with_the_way_out(project: Path) -> None:
    (project.parent / "builds").touch()
    ended = set_up(project)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "builds cannot be made (File exists); name another folder in PADDOCK_BUILD_CACHE" in ended.stderr


def test_a_broken_project_file_is_named(project: Path) -> None:
    (project / "pyproject.toml").write_text("[project")
    ended = set_up(project)
    assert ended.returncode == 1
    assert "pyproject.toml is not valid TOML" in ended.stderr


def test_a_folder_that_is_no_environment_is_left_alone(project: Path) -> None:
    (project / ".venv").mkdir()
    (project / ".venv" / "precious").touch()
    ended = set_up(project, path=os.environ["PATH"])
    assert ended.returncode == 1
    assert ended.stderr.endswith(".venv is not a virtual environment; move it away\n")
    assert (project / ".venv" / "precious").exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_while_waiting_for_another_set_up_ends_this_one_cleanly(
    project: Path, number: signal.Signals, status: int
) -> None:
    """The lock is found by running a first set-up that fails late enough to have made it."""
    (project / ".venv").mkdir()
    (project / ".venv" / "precious").touch()
    set_up(project, path=os.environ["PATH"])
    (lock,) = (project.parent / "builds" / "environments").glob("*.lock")
    with exclusive(lock, "the test"):
        waiting = subprocess.Popen(
            command(project),
            env=environment_variables(project, os.environ["PATH"]),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert waiting.stdout is not None
        assert "waiting for another set-up" in waiting.stdout.readline()
        waiting.send_signal(number)
        _, errors = waiting.communicate(timeout=20)
    assert waiting.returncode == status
    assert errors.count("\n") == 1
    assert "cleaned up" in errors


def test_a_lock_is_free_again_when_its_holder_is_done(tmp_path: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        with exclusive(tmp_path / "folder" / "lock", "work", say=said.append):
            pass
    assert said == []


def test_a_lock_outlives_a_killed_holder_until_the_command_it_ran_has_ended(tmp_path: Path) -> None:
    lock, release, said = tmp_path / "lock", tmp_path / "release", []
    waits = f"import os\nprint('Collecting', flush=True)\nwhile not os.path.exists({str(release)!r}): pass"
    holder = (
        "import sys\nfrom pathlib import Path\nfrom environment.locking import exclusive\n"
        "from environment.logged_process import run_logged\n"
        f"with exclusive(Path({str(lock)!r}), 'work'):\n"
        f"    run_logged([sys.executable, '-c', {waits!r}], activity='x', log=Path({str(tmp_path / 'log')!r}),\n"
        "               heartbeat=0.2)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", holder], cwd=ROOT / "tools", stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert process.stdout is not None
    while "Collecting" not in process.stdout.readline():
        assert process.poll() is None
    process.kill()
    process.wait()
    process.stdout.close()

    def let_it_end(line: str) -> None:
        said.append(line)
        release.touch()

    with exclusive(lock, "work", say=let_it_end):
        assert said == ["  0:00  waiting for another set-up: work"]


def test_variables_that_lead_pip_astray_do_not_reach_it() -> None:
    env = clean_environment({**dict.fromkeys(MISLEADING_VARIABLES, "x"), "CMAKE_ARGS": "-DGGML_CUDA=on"})
    assert env == {"CMAKE_ARGS": "-DGGML_CUDA=on", "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
