"""What the tests of transport and port share: a model to load, steps to run, an owner that collects casts."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

import supervisors as sup
from paddock.engine.worker import protocol
from paddock.engine.worker.messages import PingWorker, PortUp, RunStep, StartWorker, StepDone, WorkerReady
from paddock.engine.worker.port import Port
from paddock.engine.worker.transport import Isolation, Transport
from paddock.native.batch import Chunk, SampleMode
from paddock.sampling import SamplingParameters

CONTEXT: dict[str, object] = {
    "n_ctx": 2048,
    "n_seq_max": 4,
    "n_batch": 2048,
    "n_threads": 1,
    "n_threads_batch": 1,
}
GREEDY: dict[str, object] = SamplingParameters(temperature=0.0, seed=1).to_mapping()


def load_of(path: Path, **context: object) -> protocol.Load:
    return protocol.Load(str(path), {}, CONTEXT | context)


def opening(sequence_id: int, generation: int = 1) -> protocol.OpenSequence:
    return protocol.OpenSequence(sequence_id, generation, GREEDY)


def prompt(length: int, sequence_id: int = 0, generation: int = 1, sample: SampleMode = SampleMode.TOKEN) -> Chunk:
    """A prompt from position 0, the same for the same length."""
    return Chunk(sequence_id, generation, 0, [300 + i % 1000 for i in range(length)], sample)


def is_running(os_pid: int) -> bool:
    """Whether a process exists that is no zombie."""
    try:
        state = Path(f"/proc/{os_pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def exists(os_pid: int) -> bool:
    """Whether the process id is taken, also by a zombie."""
    try:
        os.kill(os_pid, 0)
    except ProcessLookupError:
        return False
    return True


# --- transports -----------------------------------------------------------------------------------------


async def receive_until(transport: Transport, kind: type[Any]) -> Any:
    """The next message of one type; those before it are dropped."""
    while True:
        message = await transport.receive()
        if isinstance(message, kind):
            return message


async def load(transport: Transport, path: Path, **context: object) -> protocol.Loaded:
    transport.send(load_of(path, **context))
    message = await receive_until(transport, protocol.Loaded | protocol.LoadFailed)
    assert isinstance(message, protocol.Loaded), message
    return message


# --- ports ----------------------------------------------------------------------------------------------


class Owner(sup.GenServer):
    """Stands where the model machine and the batch actor stand: keeps every cast in the order of its
    arrival."""

    def __init__(self, inbox: trio.MemorySendChannel[Any]) -> None:
        self._inbox = inbox

    async def handle_cast(self, message: object) -> None:
        self._inbox.send_nowait(message)


@attrs.define
class Setting:
    node: Any
    owner: sup.Pid[Any]
    port: sup.Pid[Any]
    inbox: trio.MemoryReceiveChannel[Any]
    step_id: int = 0

    async def next(self, kind: type[Any]) -> Any:
        """The next cast of one type; those before it are dropped."""
        with trio.fail_after(30):
            while True:
                message = await self.inbox.receive()
                if isinstance(message, kind):
                    return message

    async def decoding(self) -> protocol.Pong:
        """Waits until the worker is in a decode call; the Pong that says so."""
        with trio.fail_after(30):
            while True:
                pong = await sup.call(self.port, PingWorker())
                assert isinstance(pong, protocol.Pong)
                if pong.decoding_seconds > 0.0:
                    return pong

    def cast_step(
        self,
        chunks: Sequence[Chunk] = (),
        opens: Sequence[protocol.OpenSequence] = (),
        releases: Sequence[protocol.SequenceRef] = (),
    ) -> int:
        self.step_id += 1
        sup.cast(self.port, RunStep(self.owner, self.step_id, list(releases), list(opens), list(chunks)))
        return self.step_id

    async def step(
        self,
        chunks: Sequence[Chunk] = (),
        opens: Sequence[protocol.OpenSequence] = (),
        releases: Sequence[protocol.SequenceRef] = (),
    ) -> StepDone:
        step_id = self.cast_step(chunks, opens, releases)
        done = await self.next(StepDone)
        assert isinstance(done, StepDone)
        assert done.step_id == step_id
        return done


@asynccontextmanager
async def open_port(
    isolation: Isolation,
    path: Path,
    *,
    start: bool = True,
    context: dict[str, object] | None = None,
    **options: Any,
) -> AsyncIterator[Setting]:
    """A port under a node, its owner, and (with ``start``) a worker that has loaded ``path``."""
    send, receive = trio.open_memory_channel[Any](10_000)
    async with sup.open_node(label="test") as node:
        owner = await node.start(Owner, send)
        port = await node.start(Port, owner, isolation, load_of(path, **(context or {})), **options)
        setting = Setting(node, owner, port, receive)
        assert (await setting.next(PortUp)).port is port
        if start:
            sup.cast(port, StartWorker(0.0))
            await setting.next(WorkerReady)
        yield setting
