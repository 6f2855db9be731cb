"""The batch actor: one per model, the only one that issues ``decode_and_sample_batch`` calls.

It keeps one step in flight. When a step's result arrives, the next step goes to the worker first and only then are
the tokens handed to the request actors, so that text is made while the worker computes, and only after that is
anything saved. Restores and saves go to the worker between steps; see :mod:`paddock.engine.caching`.
"""

from __future__ import annotations

from typing import Any

import attrs
import trio

import supervisors as sup
from paddock.cache.client import KvStore
from paddock.engine.batching.policy import BatchLimits, plan_batch
from paddock.engine.batching.running import Running, chunks_of, rows_of
from paddock.engine.batching.sequences import Lease
from paddock.engine.caching.messages import PrefixFound, RestoreOverdue, SavesOverdue, ServedCache
from paddock.engine.caching.restores import Restores
from paddock.engine.caching.saves import Saves
from paddock.engine.requests.messages import (
    Admit,
    BatchUp,
    Cleared,
    Drop,
    Generated,
    HookLogits,
    Pause,
    PrefillProgress,
    Proceed,
    Resume,
    RowFailed,
    SampleHooked,
    Serve,
)
from paddock.engine.statistics import CacheUse, StepCounters
from paddock.engine.worker.messages import (
    LogitsDone,
    RestoreBlocksDone,
    RunSampleLogits,
    RunStep,
    SaveBlocksDone,
    StepDone,
)
from paddock.engine.worker.protocol import SequenceRef
from paddock.errors import InvalidBatch, InvalidParameter, PaddockError, SamplingFailed, WorkerDied
from paddock.native.batch import Chunk, Sampled
from paddock.telemetry.discretion import Discreet

__all__ = ["BatchActor", "CacheWiring"]

_ALL_SAVES = 1 << 20

_SHUTDOWN_SAVE_SECONDS = 1.0
"""How long a batch actor that is stopped waits for the saves of what still ran."""


@attrs.frozen
class CacheWiring:
    """How a batch actor reaches the KV store; ``use`` counts for the model and outlives the actor."""

    store: KvStore
    use: CacheUse
    save_every: int


@attrs.define
class _InFlight:
    step_id: int
    chunks: list[Chunk]
    opened: list[Lease]
    decode_rows: int
    prefill_rows: int


class BatchActor(Discreet, sup.GenServer):
    """Runs what the machine has admitted. Its state is lost with the worker's, and rebuilt by readmission.

    Without ``caching`` nothing is restored and nothing saved.
    """

    def __init__(
        self, machine: sup.Target, limits: BatchLimits, counters: StepCounters, caching: CacheWiring | None = None
    ) -> None:
        self._machine = machine
        self._limits = limits
        self._counters = counters
        self._port: sup.Pid[Any] | None = None
        self._running: dict[int, Running] = {}
        self._cache: ServedCache | None = None
        self._restores: Restores | None = None
        self._saves: Saves | None = None
        if caching is not None:
            self._restores = Restores(caching.store, caching.use, self._next_id)
            self._saves = Saves(caching.store, caching.use, self._next_id, caching.save_every)
        self._releases: list[SequenceRef] = []
        self._in_flight: _InFlight | None = None
        self._step = 0
        self._decoded_last = False
        self._saved_behind: int | None = None
        """The step behind which a save was sent last."""
        self._hook_steps: dict[int, Lease] = {}

    async def init(self) -> None:
        sup.cast(self._machine, BatchUp(sup.self()))

    async def handle_cast(self, message: object) -> None:
        match message:
            case StepDone():
                self._step_done(message)
            case Admit():
                entry = Running.admitted(message, self._step, self._limits.recipe)
                self._running[message.lease.sequence_id] = entry
                if self._restores is not None and self._cache is not None:
                    self._restores.begin(entry, self._cache)
            case Drop(lease):
                self._drop(lease)
            case Pause(lease):
                self._set_paused(lease, True)
            case Resume(lease):
                self._set_paused(lease, False)
            case Proceed(lease):
                self._proceed(lease)
            case SampleHooked(lease, logits):
                self._sample_hooked(lease, logits)
            case LogitsDone():
                self._logits_done(message)
            case PrefixFound(lease):
                if self._restores is not None:
                    self._restores.found(message, self._cache, runs=self._entry(lease) is not None)
            case RestoreOverdue():
                if self._restores is not None:
                    self._restores.overdue(message)
            case RestoreBlocksDone():
                if self._restores is not None:
                    self._restores.done(message, self._cache, runs=self._runs)
            case SavesOverdue():
                self._release(self._saves.overdue() if self._saves is not None else [])
            case SaveBlocksDone():
                if self._saves is not None:
                    self._saves.done(message, self._cache)
            case Serve(port, served):
                self._port = port
                self._cache = served.cache
                self._limits = attrs.evolve(self._limits, n_batch=served.n_batch, recipe=served.recipe)
            case _:
                raise TypeError(f"unknown message {type(message).__name__}")
        self._issue()
        await self._exchange_blocks()

    async def terminate(self, reason: object) -> None:
        """At an orderly end what still runs is saved: the worker ends after this process."""
        saves, port, cache = self._saves, self._port, self._cache
        if not isinstance(reason, sup.Shutdown) or saves is None or port is None or cache is None or not port.alive:
            return
        for entry in list(self._running.values()):
            self._drop(entry.lease)
        with trio.move_on_after(_SHUTDOWN_SAVE_SECONDS), sup.cleanup_scope():
            await saves.send(port, cache, self._runs, most=_ALL_SAVES)
            while saves.busy:
                if isinstance(message := await sup.receive(), SaveBlocksDone):
                    saves.done(message, cache)
                    await saves.send(port, cache, self._runs, most=_ALL_SAVES)

    # --- one step -----------------------------------------------------------------------------------------

    def _issue(self) -> None:
        """Sends the next step when none is in flight and there is something to do."""
        if self._port is None or self._in_flight is not None:
            return
        decode, prefill = rows_of(self._openable())
        plan = plan_batch(decode, prefill, self._limits, prefill_turn=self._decoded_last)
        if plan.empty and not self._releases:
            return
        chunks = chunks_of(plan, self._running)
        self._step += 1
        for chunk in chunks:
            self._running[chunk.sequence_id].last_served = self._step
        self._decoded_last = bool(plan.decode)
        opened = []
        for entry in (self._running[chunk.sequence_id] for chunk in chunks):
            if not entry.opened:
                entry.opened = True
                opened.append(entry.opening())
        releases, self._releases = self._releases, []
        self._in_flight = _InFlight(
            step_id=self._step,
            chunks=chunks,
            opened=[Lease(item.sequence_id, item.generation) for item in opened],
            decode_rows=len(plan.decode),
            prefill_rows=sum(item.length for item in plan.prefill),
        )
        sup.cast(self._port, RunStep(sup.self(), self._step, releases, opened, chunks))

    def _step_done(self, done: StepDone) -> None:
        flight = self._in_flight
        if flight is None or flight.step_id != done.step_id:
            return
        self._in_flight = None
        if done.error is not None:
            self._counters.failed_steps += 1
            self._step_failed(flight, done.error)
            return
        self._count(flight, done.seconds)
        advanced: list[Running] = []
        outgoing: list[tuple[sup.Pid[Any], object]] = []
        for chunk in flight.chunks:
            entry = self._entry(Lease(chunk.sequence_id, chunk.generation))
            if entry is None:
                continue
            entry.cached += len(chunk.tokens)
            advanced.append(entry)
            if entry.generated == 0 and entry.cached <= entry.prompt_length:
                outgoing.append((entry.request, PrefillProgress(entry.cached, entry.prompt_length)))
        for sampled in done.sampled:
            entry = self._entry(Lease(sampled.sequence_id, sampled.generation))
            if entry is not None:
                outgoing.append((entry.request, self._sampled(entry, sampled)))
        if self._counters.interrupted_at is not None and any(sampled.token >= 0 for sampled in done.sampled):
            self._recovered(self._counters.interrupted_at)
        for entry in advanced:
            self._clear(entry)
        self._issue()
        for request, message in outgoing:
            sup.cast(request, message)
        if self._saves is not None:
            for entry in advanced:
                if self._runs(entry):
                    self._saves.computed(entry)

    def _sampled(self, entry: Running, sampled: Sampled) -> object:
        if sampled.error is not None:
            self._drop(entry.lease)
            return RowFailed(SamplingFailed(sampled.error))
        if sampled.logits is not None:
            entry.awaiting_hook = True
            return HookLogits(sampled.logits)
        finish = entry.append(sampled.token)
        if finish is not None:
            self._drop(entry.lease)
        return Generated(sampled, finish)

    def _clear(self, entry: Running) -> None:
        if entry.watch is not None and entry.clear():
            sup.cast(self._machine, Cleared(entry.request))

    def _recovered(self, since: float) -> None:
        self._counters.interrupted_at = None
        self._counters.recoveries += 1
        self._counters.recovery_seconds += trio.current_time() - since

    def _step_failed(self, flight: _InFlight, error: PaddockError) -> None:
        """What was refused changed nothing; what was new in it is to blame. After any other failure all of it ends."""
        if isinstance(error, WorkerDied):
            return  # the port has found the worker gone, and stops: everybody goes on with the next one
        suspects = [Lease(chunk.sequence_id, chunk.generation) for chunk in flight.chunks]
        if isinstance(error, InvalidBatch | InvalidParameter) and flight.opened:
            suspects = flight.opened
        for lease in suspects:
            if (entry := self._entry(lease)) is not None:
                entry.unsaveable = True  # what its cells hold is anybody's guess
                self._drop(lease)
                sup.cast(entry.request, RowFailed(error))

    def _count(self, flight: _InFlight, seconds: float) -> None:
        counters = self._counters
        counters.decode_rows += flight.decode_rows
        counters.prefill_rows += flight.prefill_rows
        counters.decode_steps += flight.decode_rows > 0
        counters.prefill_steps += flight.prefill_rows > 0 and flight.decode_rows == 0
        counters.step_seconds += seconds
        if self._saves is not None and flight.decode_rows and not flight.prefill_rows:
            before = self._saves.step_seconds or seconds
            self._saves.step_seconds = before + (seconds - before) / 16

    # --- logits processors --------------------------------------------------------------------------------

    def _sample_hooked(self, lease: Lease, logits: bytes) -> None:
        entry = self._entry(lease)
        if entry is None or not entry.awaiting_hook or self._port is None:
            return
        self._step += 1
        self._hook_steps[self._step] = lease
        sup.cast(self._port, RunSampleLogits(sup.self(), self._step, lease.sequence_id, lease.generation, logits))

    def _logits_done(self, done: LogitsDone) -> None:
        lease = self._hook_steps.pop(done.step_id, None)
        entry = self._entry(lease) if lease is not None else None
        if entry is None:
            return
        if done.sampled is None:
            self._drop(entry.lease)
            sup.cast(entry.request, RowFailed(done.error or InvalidBatch("the worker sampled nothing")))
            return
        entry.awaiting_hook = False
        message = self._sampled(entry, done.sampled)
        self._clear(entry)
        sup.cast(entry.request, message)

    # --- blocks -------------------------------------------------------------------------------------------

    async def _exchange_blocks(self) -> None:
        """Sends the worker what is to be saved, then the next restore.

        The state of a sequence is read by the thread that decodes: while anything is computed, one save goes behind
        each step, so that streams wait for one of them at a time.
        """
        if self._saves is None or self._restores is None or self._port is None or self._cache is None:
            return
        if self._saves.waiting:
            step_id = None if self._in_flight is None else self._in_flight.step_id
            if step_id is None or step_id != self._saved_behind:
                self._saved_behind = step_id
                most = _ALL_SAVES if step_id is None else 1
                self._release(await self._saves.send(self._port, self._cache, self._runs, most=most))
                self._issue()
        self._restores.send_next(self._port, self._may_open)

    def _openable(self) -> dict[int, Running]:
        """Everything that runs, but for requests whose sequence still holds what is to be saved of its last one."""
        if self._saves is None or not self._saves.holding:
            return self._running
        return {number: entry for number, entry in self._running.items() if self._may_open(entry)}

    def _may_open(self, entry: Running) -> bool:
        return self._saves is None or not self._saves.holds(entry.lease.sequence_id)

    def _proceed(self, lease: Lease) -> None:
        if (entry := self._entry(lease)) is not None:
            entry.held = False

    def _set_paused(self, lease: Lease, paused: bool) -> None:
        if (entry := self._entry(lease)) is not None:
            entry.paused = paused

    # --- bookkeeping --------------------------------------------------------------------------------------

    def _entry(self, lease: Lease) -> Running | None:
        entry = self._running.get(lease.sequence_id)
        return entry if entry is not None and entry.lease == lease else None

    def _runs(self, entry: Running) -> bool:
        return self._running.get(entry.lease.sequence_id) is entry

    def _next_id(self) -> int:
        self._step += 1
        return self._step

    def _drop(self, lease: Lease) -> None:
        """Takes a request out; idempotent. Its cells are freed with the next step, or when they have been saved."""
        entry = self._entry(lease)
        if entry is None:
            return
        del self._running[lease.sequence_id]
        if self._restores is not None:
            self._restores.forget(entry)
        if self._saves is not None and self._saves.ended(entry):
            return
        if entry.opened:
            self._release([entry])

    def _release(self, entries: list[Running]) -> None:
        self._releases += [SequenceRef(entry.lease.sequence_id, entry.lease.generation) for entry in entries]

    def format_status(self) -> object:
        """Token ids are text in another form: status shows counts only."""
        return {
            "running": len(self._running),
            "paused": sum(entry.paused for entry in self._running.values()),
            "restoring": sum(entry.restoring for entry in self._running.values()),
            "saves": 0 if self._saves is None else self._saves.under_way,
            "step": self._step,
            "in_flight": self._in_flight is not None,
        }
