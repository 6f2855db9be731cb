"""However the process of a runtime ends, its workers end with it; nothing hangs on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

LIMIT_SECONDS = 60.0
"""For a whole program, on a busy machine."""

START = """
import os, signal, sys, warnings
import paddock.aio, paddock.blocking

def announce(model):
    print("worker", model.statistics().worker_pid, flush=True)

options = {"n_ctx": 4096, "n_seq_max": 2, "n_threads": 1}
"""

BLOCKING = {
    "forgotten": """
        runtime = paddock.blocking.open_runtime().__enter__()
        model = runtime.load_model(sys.argv[1], **options)
        announce(model)
    """,
    "forgotten with a stream in it": """
        runtime = paddock.blocking.open_runtime().__enter__()
        model = runtime.load_model(sys.argv[1], **options)
        announce(model)
        request = model.stream("hi").__enter__()
        next(request)
    """,
    "sys.exit in the block": """
        with paddock.blocking.open_runtime() as runtime:
            announce(runtime.load_model(sys.argv[1], **options))
            sys.exit(0)
    """,
    "a thread that is left waiting": """
        import threading
        with paddock.blocking.open_runtime() as runtime:
            model = runtime.load_model(sys.argv[1], **options)
            announce(model)
            waiting = threading.Thread(target=lambda: print(type(exception_of(model)).__name__), daemon=False)
            def exception_of(model):
                try:
                    return model.complete("hi")
                except BaseException as error:
                    return error
            waiting.start()
            while model.statistics().running == 0:
                pass
        waiting.join()
    """,
    "asyncio's loop ends without closing it": """
        import asyncio
        async def main():
            global opening, runtime
            opening = paddock.aio.open_runtime()
            runtime = await opening.__aenter__()
            model = await runtime.load_model(sys.argv[1], **options)
            print("worker", (await model.statistics()).worker_pid, flush=True)
        asyncio.run(main())
    """,
}


def program(body: str) -> list[str]:
    # From 3.12 on, forking with threads warns; here it is what is tested.
    quiet = ["-W", "ignore::ResourceWarning", "-W", "ignore::DeprecationWarning"]
    return [sys.executable, *quiet, "-c", START + textwrap.dedent(body)]


def run(body: str, model: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*program(body), model], capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)


def worker_of(line: str) -> int:
    word, pid = line.split()
    assert word == "worker"
    return int(pid)


def assert_ended(pid: int) -> None:
    """Within 2 seconds."""
    try:
        psutil.Process(pid).wait(2.0)
    except psutil.NoSuchProcess:
        return


@pytest.fixture
def endless(scripted_model: Callable[..., Path]) -> str:
    return str(scripted_model(b"for ever ", then="repeat"))


@pytest.mark.parametrize("body", BLOCKING.values(), ids=BLOCKING)
def test_the_interpreter_exits_and_no_worker_is_left(body: str, endless: str) -> None:
    ended = subprocess.run(
        [*program(body), endless], capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
    )
    assert ended.stderr == ""
    assert ended.returncode == 0
    first, *rest = ended.stdout.splitlines()
    assert_ended(worker_of(first))
    assert rest in ([], ["RequestCancelled"])


WAITS = """
    with paddock.blocking.open_runtime() as runtime:
        model = runtime.load_model(sys.argv[1], **options)
        try:
            with model.stream("hi") as request:
                next(request)
                announce(model)
                while True:
                    model.complete("hi", max_tokens=100)
        except KeyboardInterrupt:
            print("interrupted", request.finished, model.statistics().running, flush=True)
            raise
"""


@pytest.mark.parametrize(
    ("number", "code", "output"),
    [(signal.SIGINT, -signal.SIGINT, "interrupted True 0\n"), (signal.SIGKILL, -signal.SIGKILL, "")],
    ids=["SIGINT", "SIGKILL"],
)
def test_a_signal_ends_the_program_and_its_worker(number: int, code: int, output: str, endless: str) -> None:
    process = subprocess.Popen([*program(WAITS), endless], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    with process:
        assert process.stdout is not None
        worker = worker_of(process.stdout.readline())
        os.kill(process.pid, number)
        rest, _ = process.communicate(timeout=LIMIT_SECONDS)
    assert rest == output
    assert process.returncode == code
    assert_ended(worker)


FORKS = """
    with paddock.blocking.open_runtime() as runtime:
        model = runtime.load_model(sys.argv[1], **options)
        announce(model)
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later warn of the fork itself
        child = os.fork()
        if child == 0:
            try:
                model.complete("hi")
            except paddock.RuntimeClosed:
                sys.exit(7)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), len(model.complete("hi", max_tokens=9, temperature=0).text))
"""


def test_a_forked_child_is_told_that_the_runtime_is_not_its_own(endless: str) -> None:
    ended = subprocess.run(
        [*program(FORKS), endless], capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
    )
    first, *rest = ended.stdout.splitlines()
    assert (ended.returncode, ended.stderr, rest) == (0, "", ["7 9"])
    assert_ended(worker_of(first))
