"""A long step of the set-up shows that it lives, fails with its log's tail, and leaves nothing running."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest
from environment.failure import SetupFailed
from environment.logged_process import clock, current_step, describe_failure, run_logged


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def test_time_is_shown_in_minutes_and_seconds() -> None:
    assert [clock(seconds) for seconds in (0, 9.9, 75.2, 3600)] == ["0:00", "0:09", "1:15", "60:00"]


@pytest.mark.parametrize(
    ("tail", "step"),
    [
        ("", "starting"),
        ("  Collecting numpy>=1.26 (from paddock==0.1.0)\n", "Collecting numpy>=1.26"),
        ("WARNING: a location is ignored\n", "starting"),
        (
            "  [41/203] Building CXX object vendor/ggml/CMakeFiles/ggml-cpu.dir/ops.cpp.o\n",
            "[41/203] ops.cpp",
        ),
        ("  [ 37%] Building C object src/CMakeFiles/ggml.dir/ggml.c.o\n  note: x\n", "[37%] ggml.c"),
        ("  [203/203] Linking CXX shared library bin/libllama.so\n", "[203/203] libllama.so"),
        ("  [7/9] /usr/bin/g++ -DX -o a/ops.cpp.o -c /src/ggml/ops.cpp\n  ops.cpp: note: x\n", "[7/9] ops.cpp"),
        ("  [8/9] : && /usr/bin/g++ -shared -o bin/libggml.so a.o b.o && :\n", "[8/9] libggml.so"),
        ("  [9/9] /usr/bin/cmake -E cmake_symlink_library && :\n", "[9/9]"),
    ],
)
def test_the_step_is_read_from_the_log(tail: str, step: str) -> None:
    assert current_step(tail) == step


def test_a_command_that_takes_its_time_says_that_it_lives(tmp_path: Path) -> None:
    lines: list[str] = []
    release = tmp_path / "release"

    def release_on_second(line: str) -> None:
        lines.append(line)
        if len(lines) == 2:
            release.touch()

    waits = f"import os\nprint('Collecting numpy', flush=True)\nwhile not os.path.exists({str(release)!r}): pass"
    run_logged(
        python(waits),
        activity="installing",
        log=tmp_path / "log",
        heartbeat=0.3,
        say=release_on_second,
    )
    assert len(lines) >= 2
    assert lines[-1].endswith("installing: Collecting numpy")


def test_output_goes_to_the_log_and_earlier_output_stays(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for word in ("first", "second"):
        run_logged(python(f"print({word!r}, 'line')"), activity="talking", log=log)
    assert "first line\n" in log.read_text()
    assert "second line\n" in log.read_text()


def test_a_command_reads_no_standard_input(tmp_path: Path) -> None:
    run_logged(python("import sys; assert sys.stdin.read() == ''"), activity="reading", log=tmp_path / "log")


def test_a_failure_names_step_status_and_log_and_brings_only_its_own_tail(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("of an earlier step\n" * 50)
    with pytest.raises(SetupFailed) as caught:
        run_logged(python("print('broken here'); raise SystemExit(3)"), activity="compiling", log=log)
    assert caught.value.line.startswith("compiling: exit status 3 after 0:0")
    assert str(log) in caught.value.line
    assert caught.value.detail.splitlines()[-1] == "broken here"
    assert "earlier" not in caught.value.detail


def test_a_full_disk_is_called_a_full_disk(tmp_path: Path) -> None:
    failure = describe_failure("compiling", 1, 3.0, "x\nfatal error: No space left on device\ny", tmp_path / "log")
    assert "no space left on the disk" in failure.line


def test_a_signal_is_called_a_signal(tmp_path: Path) -> None:
    assert "killed by signal 9 after 1:01" in describe_failure("compiling", -9, 61.0, "", tmp_path / "log").line


def test_a_command_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupFailed, match=r"making it: cannot start .*nonesuch: No such file"):
        run_logged([tmp_path / "nonesuch"], activity="making it", log=tmp_path / "log")


def test_ctrl_c_ends_the_command_and_its_children(tmp_path: Path) -> None:
    """Also a grandchild that ignores SIGTERM, as a compiler under make under pip might."""
    log = tmp_path / "log"
    stubborn = "import signal; signal.signal(15, signal.SIG_IGN); print('up', flush=True); signal.pause()"
    parent = f"import subprocess, sys; c = subprocess.Popen([sys.executable, '-c', {stubborn!r}])\n"
    parent += "print('child', c.pid, flush=True); c.wait()"

    def interrupt(line: str) -> None:
        if "up\n" in log.read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_logged(python(parent), activity="compiling", log=log, heartbeat=0.05, say=interrupt)
    child = next(int(line.split()[1]) for line in log.read_text().splitlines() if line.startswith("child "))
    assert child != os.getpid()
    if psutil.pid_exists(child):
        _, alive = psutil.wait_procs([psutil.Process(child)], timeout=5)
        assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
