from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trio.lowlevel
from real_command import SECONDS, assert_gone, family, read_until, started

from paddock.cli.failures import Interrupted
from paddock.cli.interrupts import Interrupts, run_interruptible
from paddock.errors import RuntimeClosed

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.mark.parametrize(("signum", "code"), SIGNALS, ids=["SIGINT", "SIGTERM"])
def test_a_signal_while_the_model_loads_leaves_no_process(
    signum: signal.Signals, code: int, endless_model: Path
) -> None:
    with started("run", "-m", endless_model, "x") as process:
        read_until(process.stderr, rb"loading")
        workers = family(process)
        process.send_signal(signum)
        assert process.wait(SECONDS) == code
        assert process.stdout.read() == b""
        assert process.stderr.read().endswith(f"paddock: interrupted by {signum.name}\n".encode())
        assert_gone(workers)


@pytest.mark.parametrize(("signum", "code"), SIGNALS, ids=["SIGINT", "SIGTERM"])
def test_a_signal_while_text_streams_leaves_no_process(signum: signal.Signals, code: int, endless_model: Path) -> None:
    with started("run", "-m", endless_model, "x") as process:
        read_until(process.stdout, rb"Hello wide world")
        workers = family(process)
        process.send_signal(signum)
        assert process.wait(SECONDS) == code
        assert process.stdout.read().endswith(b"\n")
        assert process.stderr.read().endswith(f"paddock: interrupted by {signum.name}\n".encode())
        assert len(workers) == 1
        assert_gone(workers)


def test_under_json_an_interrupted_command_still_prints_one_object(endless_model: Path) -> None:
    with started("run", "--json", "-m", endless_model, "x") as process:
        read_until(process.stderr, rb"done in")
        workers = family(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 130
        assert json.loads(process.stdout.read())["error"]["signal"] == "SIGINT"
        assert len(workers) == 1
        assert_gone(workers)


def test_the_demo_can_be_interrupted(endless_model: Path) -> None:
    with started("demo", "-m", endless_model, "-n", "2000", "--streams", "4") as process:
        read_until(process.stderr, rb"4 streams at once")
        workers = family(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 130
        assert process.stdout.read() == b""
        assert len(workers) == 1
        assert_gone(workers)


def test_a_signal_ends_the_work_after_its_clean_up() -> None:
    steps = []

    async def work(_: Interrupts) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
                steps.append("cleaned up")

    with pytest.raises(Interrupted) as caught:
        run_interruptible(work)
    assert (caught.value.exit_code, steps) == (143, ["cleaned up"])


def test_within_a_reply_the_first_control_c_is_answered_and_the_second_ends_the_work() -> None:
    answers: list[str] = []

    async def work(interrupts: Interrupts) -> None:
        answered = trio.Event()
        with interrupts.answered_by(answered.set):
            os.kill(os.getpid(), signal.SIGINT)
            await answered.wait()
            answers.append("answered")
            os.kill(os.getpid(), signal.SIGINT)
            await trio.sleep_forever()

    with pytest.raises(Interrupted) as caught:
        run_interruptible(work)
    assert (caught.value.exit_code, answers) == (130, ["answered"])


def test_without_a_signal_the_result_or_the_error_comes_through() -> None:
    async def give(_: Interrupts) -> int:
        await trio.lowlevel.checkpoint()
        return 7

    async def fail(_: Interrupts) -> int:
        raise RuntimeClosed

    assert run_interruptible(give) == 7
    with pytest.raises(RuntimeClosed):
        run_interruptible(fail)


def test_a_second_signal_during_the_clean_up_leaves_at_once() -> None:
    script = (
        "import trio\n"
        "from paddock.cli.interrupts import run_interruptible\n"
        "async def work(interrupts):\n"
        "    try:\n"
        "        print('up', flush=True)\n"
        "        await trio.sleep_forever()\n"
        "    finally:\n"
        "        print('down', flush=True)\n"
        "        with trio.CancelScope(shield=True):\n"
        "            await trio.sleep_forever()\n"
        "run_interruptible(work)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    try:
        read_until(process.stdout, rb"up")
        process.send_signal(signal.SIGINT)
        read_until(process.stdout, rb"down")
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 130
    finally:
        process.kill()
        process.communicate()
