"""Round trip per step between a port and its worker, in both isolation modes.

Measured, each as the median over interleaved runs (process, thread, process, ...), in microseconds:

* ``transport empty``: an empty step, sent and answered through the bare transport;
* ``port empty``: the same through the port's actor and back by cast to the actor that asked;
* ``port 16 rows``: a step with one decode row for each of 16 sequences, less the worker's own time for it;
* ``ping``: a Ping through the transport, which never visits the decode thread.

Empty steps and pings follow each other closely, so that caches are warm and no thread sleeps deeply; a
16-row step leaves the parent asleep for milliseconds and the caches full of weights, as real steps do.

Usage: python bench/round_trip.py [--model FILE] [--runs N] [--steps N] [--json]
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import structlog
import trio

import supervisors as sup
from paddock.engine.worker import protocol
from paddock.engine.worker.messages import PortUp, RunStep, StartWorker, StepDone, WorkerReady, WorkerRefused
from paddock.engine.worker.port import Port
from paddock.engine.worker.transport import Isolation, Transport, open_transport
from paddock.native.batch import Chunk, SampleMode
from paddock.sampling import SamplingParameters

SEQUENCES = 16
CONTEXT = {"n_ctx": 1024, "n_seq_max": SEQUENCES, "n_batch": 512, "n_threads": 1, "n_threads_batch": 1}
ISOLATIONS: tuple[Isolation, ...] = ("process", "thread")


class Asker(sup.GenServer):
    """Stands where the batch actor stands."""

    def __init__(self, inbox: trio.MemorySendChannel[Any]) -> None:
        self._inbox = inbox

    async def handle_cast(self, message: object) -> None:
        if isinstance(message, WorkerRefused):
            raise message.error
        if isinstance(message, PortUp | WorkerReady | StepDone):
            self._inbox.send_nowait(message)


async def measure_transport(transport: Transport, message: Any, steps: int) -> float:
    """Median seconds from send to answer."""
    times = []
    for _ in range(steps):
        started = time.perf_counter()
        transport.send(message)
        await transport.receive()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


class PortUnderTest:
    """A port with 16 sequences that have a prompt each, ready to decode."""

    def __init__(self, port: sup.Pid[Any], asker: sup.Pid[Any], inbox: trio.MemoryReceiveChannel[Any]) -> None:
        self._port = port
        self._asker = asker
        self._inbox = inbox
        self._generation = 0
        self._position = 0
        self._tokens = [0] * SEQUENCES

    @classmethod
    async def start(cls, node: Any, isolation: Isolation, load: protocol.Load) -> PortUnderTest:
        send, inbox = trio.open_memory_channel[Any](100)
        asker = await node.start(Asker, send)
        port = await node.start(Port, asker, isolation, load)
        await inbox.receive()
        sup.cast(port, StartWorker(0.0))
        await inbox.receive()
        return cls(port, asker, inbox)

    async def step(self, opens: list[protocol.OpenSequence], chunks: list[Chunk]) -> tuple[float, StepDone]:
        """Seconds from cast to answer, and the answer."""
        started = time.perf_counter()
        sup.cast(self._port, RunStep(self._asker, 0, [], opens, chunks))
        done = await self._inbox.receive()
        seconds = time.perf_counter() - started
        if done.error is not None:
            raise done.error
        return seconds, done

    async def empty(self, steps: int) -> float:
        return statistics.median([(await self.step([], []))[0] for _ in range(steps)])

    async def rows(self, steps: int) -> float:
        """Median of a 16-row step's round trip less the worker's own time."""
        await self._prefill()
        times = []
        for _ in range(steps):
            seconds, done = await self._decode()
            times.append(seconds - done.seconds)
        return statistics.median(times)

    async def _prefill(self) -> None:
        self._generation += 1
        sampling = SamplingParameters(temperature=0.0, seed=1).to_mapping()
        opens = [protocol.OpenSequence(i, self._generation, sampling) for i in range(SEQUENCES)]
        chunks = [Chunk(i, self._generation, 0, [300 + i, 301, 302], SampleMode.TOKEN) for i in range(SEQUENCES)]
        _, done = await self.step(opens, chunks)
        self._position = 3
        self._tokens = [sampled.token for sampled in done.sampled]

    async def _decode(self) -> tuple[float, StepDone]:
        chunks = [
            Chunk(i, self._generation, self._position, [token], SampleMode.TOKEN)
            for i, token in enumerate(self._tokens)
        ]
        seconds, done = await self.step([], chunks)
        self._position += 1
        self._tokens = [sampled.token for sampled in done.sampled]
        return seconds, done


async def load_transport(transport: Transport, load: protocol.Load) -> None:
    transport.send(load)
    while not isinstance(message := await transport.receive(), protocol.Loaded):
        if isinstance(message, protocol.LoadFailed):
            raise SystemExit(f"the model could not be loaded: {message.fault}")


async def measure(model: Path, runs: int, steps: int) -> dict[str, dict[str, float]]:
    load = protocol.Load(str(model), {}, dict(CONTEXT))
    found: dict[str, dict[str, list[float]]] = {
        name: {isolation: [] for isolation in ISOLATIONS}
        for name in ("ping", "transport empty", "port empty", "port 16 rows")
    }
    async with (
        open_transport("process") as process,
        open_transport("thread") as thread,
        sup.open_node(label="bench") as node,
    ):
        transports: dict[Isolation, Transport] = {"process": process, "thread": thread}
        for transport in transports.values():
            await load_transport(transport, load)
        ports = {isolation: await PortUnderTest.start(node, isolation, load) for isolation in ISOLATIONS}
        for _ in range(runs):
            for isolation in ISOLATIONS:
                transport = transports[isolation]
                ping = await measure_transport(transport, protocol.Ping(1), steps)
                empty = await measure_transport(transport, protocol.Step(1, [], [], []), steps)
                found["ping"][isolation].append(ping)
                found["transport empty"][isolation].append(empty)
                found["port empty"][isolation].append(await ports[isolation].empty(steps))
                found["port 16 rows"][isolation].append(await ports[isolation].rows(min(steps, 300)))
    return {
        name: {isolation: 1e6 * statistics.median(times) for isolation, times in by_isolation.items()}
        for name, by_isolation in found.items()
    }


def build_model(folder: Path) -> Path:
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from gguf_builders import build_random_model

    return build_random_model(folder / "tiny.gguf")


def main() -> None:
    parser = argparse.ArgumentParser(description="round trip per step, in both isolation modes")
    parser.add_argument("--model", type=Path, help="a GGUF file; a tiny random model without it")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or build_model(Path(folder))
        result = trio.run(measure, model, options.runs, options.steps)
    if options.json:
        print(json.dumps({"unit": "microseconds", "runs": options.runs, "median": result}))
        return
    print(f"{'microseconds':18}" + "".join(f"{isolation:>10}" for isolation in ISOLATIONS))
    for name, by_isolation in result.items():
        print(f"{name:18}" + "".join(f"{by_isolation[isolation]:10.0f}" for isolation in ISOLATIONS))


if __name__ == "__main__":
    main()
