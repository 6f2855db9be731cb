"""`run`: Ctrl-C is an orderly stop and exit code 130, in real programs with a real SIGINT."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
from actors import Broken, Echo

import supervisors as sup
from supervisors.testing import virtual_clock

PROGRAM = """
import signal, sys, time
import trio
import supervisors as sup

def say(*words):
    print(*words, flush=True)

class Worker(sup.GenServer):
    def __init__(self, id, init_seconds=0, stop_seconds=0):
        self.id, self.init_seconds, self.stop_seconds = id, init_seconds, stop_seconds

    async def init(self):
        say("starting", self.id)
        await trio.sleep(self.init_seconds)
        say("up", self.id)

    async def terminate(self, reason):
        say("stopping", self.id)
        await trio.sleep(self.stop_seconds)
        say("down", self.id)

class Defiant:
    async def run(self):
        say("up defiant")
        while True:
            try:
                with trio.CancelScope(shield=True):
                    await trio.sleep_forever()
            except trio.Cancelled:
                pass

def tree(*children):
    specs = [sup.child(Worker, *child, id=child[0], shutdown=60) for child in children]
    return sup.SupervisorFlags(), specs

async def starting(node):
    await node.start(Worker, "a")
    await node.start(sup.Supervisor, *tree(("b",), ("c", 0, 0.1), ("hangs", 1000)))

async def running(node):
    await node.start(Worker, "a")
    await node.start(sup.Supervisor, *tree(("b",), ("c",)))
    say("running")
    await trio.sleep_forever()

async def stopping(node):
    await node.start(Worker, "a")
    await node.start(sup.Supervisor, *tree(("b",), ("c", 0, 0.3)))

async def endless(node):
    await node.start(Worker, "a")
    await node.start(sup.Supervisor, *tree(("b", 0, 1000), ("c",)))
    say("running")
    await trio.sleep_forever()

async def defiant(node):
    import supervisors.nodes.node as node_module
    node_module.WORKER_SHUTDOWN_SECONDS = node_module.KILL_GRACE_SECONDS = 0.05
    await node.start(Worker, "a")
    node.spawn(Defiant().run)
    await trio.sleep_forever()

import logging
logging.basicConfig(stream=sys.stdout, format="log: %(message)s")
value = sup.run(globals()[sys.argv[1]])
say("left run with", value)
"""

ORDERLY = ["stopping c", "down c", "stopping b", "down b", "stopping a", "down a"]


def interrupted(what: str, *after: str) -> tuple[int, list[str]]:
    """Run the program, send it SIGINT each time it has written the next of ``after``; (exit code, lines)."""
    with subprocess.Popen(
        [sys.executable, "-u", "-c", PROGRAM, what],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[3],
    ) as process:
        assert process.stdout is not None
        lines: list[str] = []
        waiting = list(after)
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if waiting and lines[-1] == waiting[0]:
                waiting.pop(0)
                process.send_signal(signal.SIGINT)
        assert waiting == [], lines
    return process.returncode, lines


@pytest.mark.parametrize(
    ("what", "after"), [("starting", "starting hangs"), ("running", "running"), ("stopping", "stopping c")]
)
def test_ctrl_c_during_start_running_and_stop_is_orderly_and_gives_130(what: str, after: str) -> None:
    code, lines = interrupted(what, after)
    assert [line for line in lines if line.startswith(("stopping", "down"))] == ORDERLY
    assert code == 130
    assert not any("left run" in line or "Traceback" in line for line in lines)


def test_second_ctrl_c_during_the_stop_kills_what_is_left() -> None:
    code, lines = interrupted("endless", "running", "stopping b")
    assert [line for line in lines if line.startswith(("stopping", "down"))] == ["stopping c", "down c", "stopping b"]
    assert code == 130


def test_process_that_resists_even_its_kill_does_not_keep_the_program_from_ending() -> None:
    code, lines = interrupted(
        "defiant",
        "up defiant",
        "down a",
    )
    assert code == 130
    assert any("unkillable" in line for line in lines)
    assert any("halted" in line for line in lines)


def test_run_gives_the_value_of_main_and_stops_everything() -> None:
    async def main(node: sup.Node, number: int) -> Any:
        return await sup.call(await node.start(Echo), number)

    assert sup.run(main, 7, clock=virtual_clock()) == 7


def test_exception_of_main_leaves_run_as_it_is() -> None:
    async def main(node: sup.Node) -> None:
        raise Broken("main")

    with pytest.raises(Broken):
        sup.run(main)


@pytest.mark.parametrize("where", ["main", "nursery of main", "process"])
def test_keyboard_interrupt_becomes_exit_code_130_wherever_it_is_raised(where: str) -> None:
    async def interrupt() -> None:
        signal.raise_signal(signal.SIGINT)
        await trio.sleep_forever()

    async def main(node: sup.Node) -> None:
        if where == "main":
            await interrupt()
        if where == "process":
            node.spawn(interrupt)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(interrupt)

    with pytest.raises(SystemExit) as left:
        sup.run(main, clock=virtual_clock())
    assert left.value.code == 130
