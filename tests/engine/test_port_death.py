"""A worker process that dies: the port tells everyone, stops with WorkerGone, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import trio
from port_harness import exists, load_of, open_port, opening, prompt

import supervisors as sup
from paddock.engine.worker.messages import (
    PortUp,
    StartWorker,
    TokenizeText,
    WorkerGone,
    WorkerInfo,
    WorkerReady,
    WorkerRefused,
)
from paddock.engine.worker.port import Port
from paddock.errors import WorkerDied


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
async def test_a_port_whose_worker_is_killed_stops_with_the_reason(
    tiny_model_path: Path, number: signal.Signals
) -> None:
    async with open_port("process", tiny_model_path) as setting:
        os_pid = (await sup.call(setting.port, WorkerInfo())).os_pid
        setting.cast_step([prompt(2000)], [opening(0)])
        await setting.decoding()
        os.kill(os_pid, number)
        reason = await sup.wait_down(setting.port)
        assert isinstance(reason, WorkerGone)
        assert reason.error.how == f"signal {number.name}"
        assert not exists(os_pid)


async def test_a_call_that_waits_for_a_worker_that_dies_raises_worker_died(tiny_model_path: Path) -> None:
    async with open_port("process", tiny_model_path) as setting:
        os_pid = (await sup.call(setting.port, WorkerInfo())).os_pid
        os.kill(os_pid, signal.SIGSTOP)
        outcome: list[BaseException] = []

        async def ask() -> None:
            try:
                await sup.call(setting.port, TokenizeText(b"a llama", True, False))
            except WorkerDied as error:
                outcome.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            while (await sup.call(setting.port, WorkerInfo())).calls_in_flight == 0:
                await trio.lowlevel.checkpoint()
            os.kill(os_pid, signal.SIGKILL)
        assert [type(error) for error in outcome] == [WorkerDied]
        await sup.wait_down(setting.port)


async def test_a_supervisor_replaces_the_port_and_the_next_worker_serves(tiny_model_path: Path) -> None:
    async with open_port("process", tiny_model_path, start=False) as setting:
        flags = sup.SupervisorFlags(strategy="one_for_one", intensity=5, period=5.0)
        spec = sup.child(Port, setting.owner, "process", load_of(tiny_model_path), id="port")
        await setting.node.start(sup.Supervisor, flags, [spec])
        seen: set[int] = set()
        for _ in range(3):
            port = (await setting.next(PortUp)).port
            sup.cast(port, StartWorker(0.0))
            await setting.next(WorkerReady)
            os_pid = (await sup.call(port, WorkerInfo())).os_pid
            assert os_pid not in seen
            seen.add(os_pid)
            os.kill(os_pid, signal.SIGKILL)
        await setting.next(PortUp)
    assert len(seen) == 3
    assert not [os_pid for os_pid in seen if exists(os_pid)]


async def test_a_port_that_is_killed_takes_its_worker_with_it(tiny_model_path: Path) -> None:
    async with open_port("process", tiny_model_path) as setting:
        os_pid = (await sup.call(setting.port, WorkerInfo())).os_pid
        sup.exit(setting.port, sup.Killed())
        await sup.wait_down(setting.port)
    assert not exists(os_pid)


async def test_a_cancelled_node_leaves_no_worker_and_no_zombie(tiny_model_path: Path) -> None:
    with trio.CancelScope() as scope:
        async with open_port("process", tiny_model_path) as setting:
            os_pid = (await sup.call(setting.port, WorkerInfo())).os_pid
            setting.cast_step([prompt(2000)], [opening(0)])
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert not exists(os_pid)


async def test_a_worker_that_dies_before_it_has_loaded_is_a_death_as_well(tiny_model_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no library here')"]
    async with open_port("process", tiny_model_path, start=False, worker_command=command) as setting:
        sup.cast(setting.port, StartWorker(0.0))
        reason = await sup.wait_down(setting.port)
        assert isinstance(reason, WorkerGone)
        assert (reason.error.how, reason.error.last_words) == ("exit code 1", "no library here")


async def test_a_command_that_does_not_exist_refuses_the_model(tiny_model_path: Path) -> None:
    async with open_port("process", tiny_model_path, start=False, worker_command=["/nonexistent/python"]) as setting:
        sup.cast(setting.port, StartWorker(0.0))
        refused = await setting.next(WorkerRefused)
        assert "no worker could be started" in str(refused.error)


async def test_a_delayed_start_waits_its_time(tiny_model_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    command = [sys.executable, "-c", "raise SystemExit(4)"]
    async with open_port("process", tiny_model_path, start=False, worker_command=command) as setting:
        started = trio.current_time()
        sup.cast(setting.port, StartWorker(30.0))
        reason = await sup.wait_down(setting.port)
        assert isinstance(reason, WorkerGone)
        assert trio.current_time() - started >= 30.0


async def test_a_worker_that_does_not_stop_is_killed_after_the_time_it_was_given(tiny_model_path: Path) -> None:
    async with open_port("process", tiny_model_path, stop_seconds=0.2) as setting:
        status = await sup.call(setting.port, WorkerInfo())
        os.kill(status.os_pid, signal.SIGSTOP)
        began = trio.current_time()
        await sup.stop(setting.port, sup.Shutdown(), timeout=10)
        assert trio.current_time() - began < 1.9  # without the setting it would be two seconds
        assert not exists(status.os_pid)
