"""A batch actor with a real port and worker behind it, and a test in the place of machine and requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio
from port_harness import Owner

import supervisors as sup
from paddock.config import ModelConfig
from paddock.engine.batching.actor import BatchActor
from paddock.engine.batching.sequences import Lease, SequenceAllocator
from paddock.engine.plan import plan_model
from paddock.engine.requests.messages import Admit, BatchUp, Drop, Generated, RowFailed, Serve
from paddock.engine.served import served_model
from paddock.engine.statistics import StepCounters
from paddock.engine.worker.messages import StartWorker, WorkerReady
from paddock.engine.worker.port import Port
from paddock.models.facts import facts_of
from paddock.models.gguf_header import read_header
from paddock.native.batch import Sampled
from paddock.sampling.parameters import SamplingParameters


@attrs.define
class Batch:
    """``run`` admits one request and collects its tokens; several may run at once."""

    node: Any
    actor: sup.Pid[Any]
    sequences: SequenceAllocator
    counters: StepCounters

    async def run(
        self,
        prompt: list[int],
        sampling: SamplingParameters,
        max_tokens: int,
        *,
        until: int | None = None,
        **more: Any,
    ) -> list[Sampled]:
        """Ends after ``max_tokens`` (``reply`` counts), or is dropped after ``until`` new ones."""
        send, receive = trio.open_memory_channel[Any](10_000)
        request = await self.node.start(Owner, send)
        lease = self.sequences.lease()
        assert lease is not None
        sup.cast(
            self.actor,
            Admit(
                request=request,
                lease=lease,
                prompt=prompt,
                sampling=sampling,
                max_tokens=max_tokens,
                end_tokens=frozenset(),
                priority=0,
                hooked=False,
                **more,
            ),
        )
        sampled: list[Sampled] = []
        try:
            with trio.fail_after(60):
                async for message in receive:
                    assert not isinstance(message, RowFailed), message
                    if isinstance(message, Generated):
                        sampled.append(message.sampled)
                        if message.finish is not None or len(sampled) == until:
                            break
        finally:
            self._drop(lease)
        return sampled

    def _drop(self, lease: Lease) -> None:
        sup.cast(self.actor, Drop(lease))
        self.sequences.release(lease)


@asynccontextmanager
async def open_batch(path: Path, *, isolation: Any = "thread", **options: Any) -> AsyncIterator[Batch]:
    """A batch actor that serves ``path``; ``options`` are fields of ModelConfig."""
    config = ModelConfig(source=path, **{"n_ctx": 1024, "n_seq_max": 8, "n_threads": 1, **options})
    facts = facts_of(read_header(path))
    plan = plan_model(config, facts)
    counters = StepCounters()
    send, inbox = trio.open_memory_channel[Any](1000)

    async def next_of(kind: type[Any]) -> Any:
        with trio.fail_after(30):
            while not isinstance(message := await inbox.receive(), kind):
                pass
        return message

    async with sup.open_node(label="test") as node:
        machine = await node.start(Owner, send)
        port = await node.start(Port, machine, isolation, plan.load)
        sup.cast(port, StartWorker(0.0))
        loaded = (await next_of(WorkerReady)).loaded
        actor = await node.start(BatchActor, machine, plan.limits, counters)
        await next_of(BatchUp)
        sup.cast(actor, Serve(port, served_model("test", facts, plan.recipe, loaded, plan.n_ctx)))
        yield Batch(node, actor, SequenceAllocator(config.n_seq_max), counters)
