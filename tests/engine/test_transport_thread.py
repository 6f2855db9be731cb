"""What is peculiar to a worker in threads of this process."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from port_harness import load, opening, prompt, receive_until

from paddock.engine.worker import protocol
from paddock.engine.worker.transport import open_transport
from paddock.errors import InvalidConfiguration, ProtocolError, WorkerDied


def paddock_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("paddock")]


async def test_the_threads_end_with_the_block(tiny_model_path: Path) -> None:
    async with open_transport("thread") as transport:
        await load(transport, tiny_model_path)
        assert transport.os_pid is None
        assert sorted(paddock_threads()) == ["paddock decode", "paddock state", "paddock tokenize"]
        decode = next(thread for thread in threading.enumerate() if thread.name == "paddock decode")
    decode.join(5)
    assert paddock_threads() == []


async def test_an_ended_thread_is_reported_like_a_dead_process(tiny_model_path: Path) -> None:
    async with open_transport("thread") as transport:
        await load(transport, tiny_model_path)
        transport.kill()
        with pytest.raises(WorkerDied, match="its thread ended"):
            await transport.receive()
        transport.send(protocol.Ping(1))
        with pytest.raises(WorkerDied):
            await transport.receive()


async def test_one_thread_decodes_whatever_the_number_of_steps(tiny_model_path: Path) -> None:
    """libgomp keeps a pool of threads for each thread that calls it."""
    async with open_transport("thread") as transport:
        await load(transport, tiny_model_path)
        before = threading.active_count()
        for number in range(1, 4):
            transport.send(protocol.Step(number, [], [opening(0, number)], [prompt(3, generation=number)]))
            assert (await receive_until(transport, protocol.Stepped)).fault is None
        assert threading.active_count() == before


async def test_what_comes_before_the_model_is_loaded_is_refused() -> None:
    async with open_transport("thread") as transport:
        transport.send(protocol.Step(1, [], [], []))
        transport.send(protocol.Tokenize(2, b"x", True, False))
        transport.send(protocol.SampleLogits(3, 0, 1, b""))
        for kind in (protocol.Stepped, protocol.Tokenized, protocol.LogitsSampled):
            answer = await receive_until(transport, protocol.Stepped | protocol.Tokenized | protocol.LogitsSampled)
            assert answer.fault.kind == ProtocolError.__name__, kind


async def test_an_environment_that_comes_too_late_is_refused(tiny_model_path: Path) -> None:
    async with open_transport("thread") as transport:
        await load(transport, tiny_model_path)
    with pytest.raises(InvalidConfiguration, match="GGML_CPU_TILED_MM=0"):
        async with open_transport("thread", environment={"GGML_CPU_TILED_MM": "0"}):
            raise AssertionError("unreachable")
    assert "GGML_CPU_TILED_MM" not in os.environ
    async with open_transport("thread", environment={"PATH": os.environ["PATH"]}):
        pass
