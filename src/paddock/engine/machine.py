"""The model machine: the state of one loaded model, and who may use it.

    loading -> serving <-> recovering
    loading, recovering -> failed           (the file was refused, the load took too long, the worker kept dying)
    any -> draining                         (no new requests; answered when none is left)

It outlives its worker: when port and batch are restarted, queue and request actors stay, and what was waiting is
admitted again. It monitors every request, so a sequence comes back however its request ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import trio

import supervisors as sup
from paddock.engine.batching.admission import AdmissionQueue
from paddock.engine.batching.sequences import Lease, SequenceAllocator
from paddock.engine.caching.messages import CacheOpened, OpenCache, ServedCache
from paddock.engine.plan import ModelPlan
from paddock.engine.requests.actor import CANCELLED
from paddock.engine.requests.messages import (
    AwaitServing,
    BatchUp,
    CancelRequest,
    Cleared,
    Drain,
    Drop,
    Enlist,
    Interrupted,
    Leased,
    MachineStatistics,
    Proceed,
    Serve,
    TextReady,
    UseWorker,
    Watch,
    WorkerLost,
)
from paddock.engine.restarts import recent_deaths, restart_delay
from paddock.engine.served import ServedModel, served_model
from paddock.engine.statistics import CacheUse, ModelStatistics, StepCounters
from paddock.engine.suspicion import Inquiry, after_death, certain_signal, without
from paddock.engine.worker.messages import (
    LoadProgressed,
    PortUp,
    StartWorker,
    Unanswered,
    WorkerGone,
    WorkerReady,
    WorkerRefused,
)
from paddock.engine.worker.protocol import Loaded
from paddock.errors import (
    ModelLoadFailed,
    ModelNotLoaded,
    ModelUnavailable,
    PaddockError,
    PoisonRequest,
    QueueFull,
    WorkerDied,
)
from paddock.telemetry.discretion import Discreet

__all__ = ["ModelMachine"]


@attrs.define
class _Outcomes:
    submitted: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    refused: int = 0
    recovered: int = 0
    poisoned: int = 0


class ModelMachine(Discreet, sup.GenStatem):
    """``on_progress`` is told the fraction loaded; it must not raise and not block. ``keeper`` gives a model that has
    been loaded its place in the KV store; None where it has none."""

    callback_mode = "handle_event_function"

    def __init__(
        self,
        plan: ModelPlan,
        counters: StepCounters,
        on_progress: Callable[[float], None],
        keeper: sup.Target | None = None,
        use: CacheUse | None = None,
    ) -> None:
        self._plan = plan
        self._counters = counters
        self._keeper = keeper
        self._use = use if use is not None else CacheUse()
        self._on_progress = on_progress
        self._queue: AdmissionQueue[sup.Pid[Any]] = AdmissionQueue(plan.config.queue_limit)
        self._sequences = SequenceAllocator(plan.config.n_seq_max)
        self._leases: dict[sup.Pid[Any], Lease | None] = {}
        self._port: sup.Pid[Any] | None = None
        self._batch: sup.Pid[Any] | None = None
        self._served: ServedModel | None = None
        self._error: PaddockError | None = None
        self._waiters: list[Any] = []
        self._drainers: list[Any] = []
        self._deaths: tuple[float, ...] = ()
        self._inquiry: Inquiry[sup.Pid[Any]] | None = None
        self._unanswered: dict[sup.Pid[Any], Unanswered] = {}
        """What the worker died with, of those who are suspects of its last death."""
        self._placed: set[sup.Pid[Any]] = set()
        """Who was sent to the present batch actor."""
        self._outcomes = _Outcomes()
        self._worker_starts = 0
        self._worker_deaths = 0

    async def init(self) -> Any:
        return "loading", [sup.StateTimeout(self._plan.config.load_timeout, "load")]

    async def handle_event(self, event_type: sup.EventType, content: Any, state: Any) -> Any:
        if event_type == sup.EventType.CALL:
            return self._call(event_type.from_, content, state)
        if event_type == sup.EventType.CAST:
            return self._cast(content, state)
        if event_type == sup.EventType.STATE_TIMEOUT:
            return self._load_timed_out(state)
        if isinstance(content, sup.Down):
            if content.pid is self._port:
                return self._port_down(content.reason, state)
            if content.pid is self._batch:
                self._batch = None
                self._batch_down(content.reason)
            elif isinstance(content.pid, sup.Pid) and content.pid in self._leases:
                self._request_down(content.pid, content.reason)
        return sup.keep_state()

    def _batch_down(self, reason: object) -> None:
        """Its supervisor stops the batch actor before this process: that is the end of the model, not a fault of it."""
        if isinstance(reason, sup.Shutdown):
            for pid, lease in self._leases.items():
                if lease is not None:
                    sup.cast(pid, CancelRequest("shutdown"))
        else:
            self._fail_running(WorkerDied(f"its batch actor ended: {reason}"))

    def _fail_running(self, error: PaddockError) -> None:
        for pid, lease in self._leases.items():
            if lease is not None:
                sup.cast(pid, WorkerLost(error))

    # --- calls --------------------------------------------------------------------------------------------

    def _call(self, from_: Any, request: object, state: str) -> Any:
        match request:
            case Enlist(pid, priority):
                refusal = self._refusal(state)
                if refusal is not None:
                    return sup.keep_state(sup.ReplyError(from_, refusal))
                self._enlist(pid, priority)
                return sup.keep_state(sup.ReplyTo(from_, None))
            case AwaitServing():
                if self._served is not None:
                    return sup.keep_state(sup.ReplyTo(from_, self._served))
                if state in ("failed", "draining"):
                    return sup.keep_state(sup.ReplyError(from_, self._error or ModelNotLoaded(self._plan.name)))
                self._waiters.append(from_)
                return sup.keep_state()
            case Drain(cancel):
                return self._drain(from_, cancel)
            case MachineStatistics():
                return sup.keep_state(sup.ReplyTo(from_, self._statistics(state)))
            case _:
                raise TypeError(f"unknown request {type(request).__name__}")

    def _refusal(self, state: str) -> PaddockError | None:
        if state == "failed":
            return ModelUnavailable(self._plan.name, str(self._error))
        if state == "draining":
            return ModelNotLoaded(self._plan.name)
        if not self._queue.room(self._sequences.free):
            self._outcomes.refused += 1
            return QueueFull(self._plan.name, self._plan.config.queue_limit)
        return None

    def _enlist(self, pid: sup.Pid[Any], priority: int) -> None:
        self._outcomes.submitted += 1
        self._leases[pid] = None
        self._queue.enlist(pid, priority)
        sup.monitor(pid)
        if self._served is not None and self._port is not None:
            sup.cast(pid, UseWorker(self._port, self._served))

    def _drain(self, from_: Any, cancel: bool) -> Any:
        if cancel:
            for pid in self._leases:
                sup.cast(pid, CancelRequest("unload"))
        if not self._leases:
            return sup.next_state("draining", sup.ReplyTo(from_, None))
        self._drainers.append(from_)
        return sup.next_state("draining", *self._reload_bound())

    def _reload_bound(self) -> list[sup.StateTimeout]:
        """While there is no worker, the state must end by itself: requests wait in it."""
        return [] if self._served is not None else [sup.StateTimeout(self._plan.config.load_timeout, "load")]

    # --- casts --------------------------------------------------------------------------------------------

    def _cast(self, message: object, state: str) -> Any:
        match message:
            case TextReady(pid):
                self._queue.make_ready(pid)
                self._admit()
            case PortUp(port):
                return self._port_up(port, state)
            case LoadProgressed(fraction):
                self._on_progress(fraction)
            case WorkerReady(port, loaded):
                if self._keeper is None:
                    return self._loaded(port, loaded, None, state)
                if port is self._port:
                    sup.cast(self._keeper, OpenCache(sup.self(), port, loaded))
            case CacheOpened(port, loaded, cache):
                return self._loaded(port, loaded, cache, state)
            case WorkerRefused(port, error):
                if port is self._port:
                    return self._give_up(error)
            case Cleared(request):
                self._suspicion_ends(request)
            case BatchUp(batch):
                self._batch = batch
                sup.monitor(batch)
                return self._serve(state)
            case _:
                raise TypeError(f"unknown message {type(message).__name__}")
        return sup.keep_state()

    def _loaded(self, port: sup.Pid[Any], loaded: Loaded, cache: ServedCache | None, state: str) -> Any:
        if port is not self._port or state == "failed":
            return sup.keep_state()
        plan = self._plan
        served = served_model(plan.name, plan.facts, plan.recipe, loaded, plan.n_ctx)
        self._served = attrs.evolve(served, cache=cache)
        return self._serve(state)

    def _port_up(self, port: sup.Pid[Any], state: str) -> Any:
        self._port = port
        sup.monitor(port)
        if state == "failed":
            return sup.keep_state()  # out of service: the port stays idle, so that its supervisor has peace
        delay = 0.0 if not self._deaths else restart_delay(len(self._deaths), self._plan.config.max_restarts)
        if delay is None:
            times = f"{len(self._deaths)} deaths in {self._plan.config.restart_period:g} s"
            return self._give_up(ModelUnavailable(self._plan.name, f"{times}, the last: {self._error}"))
        self._worker_starts += 1
        sup.cast(port, StartWorker(delay))
        return sup.keep_state(sup.StateTimeout(delay + self._plan.config.load_timeout, "load"))

    def _serve(self, state: str) -> Any:
        """Goes into service when worker and batch actor are both there."""
        served, port, batch = self._served, self._port, self._batch
        if served is None or port is None or batch is None:
            return sup.keep_state()
        sup.cast(batch, Serve(port, served))
        for pid in self._leases:
            sup.cast(pid, UseWorker(port, served))
        self._placed.clear()
        self._place()
        waiters, self._waiters = self._waiters, []
        self._admit()
        return sup.next_state(
            "draining" if state == "draining" else "serving",
            *(sup.ReplyTo(waiter, served) for waiter in waiters),
        )

    def _admit(self) -> None:
        """Gives free sequences to whoever is next, while there is a worker to compute them."""
        if self._served is None or self._batch is None or (self._inquiry is not None and self._inquiry.alone):
            return
        while self._sequences.free:
            pid = self._queue.next()
            if pid is None:
                return
            lease = self._sequences.lease()
            assert lease is not None
            self._leases[pid] = lease
            self._placed.add(pid)
            sup.cast(pid, Leased(lease, self._batch))

    # --- ends ---------------------------------------------------------------------------------------------

    def _request_down(self, pid: sup.Pid[Any], reason: object) -> None:
        lease = self._leases.pop(pid)
        self._queue.discard(pid)
        self._placed.discard(pid)
        if reason == sup.Normal():
            self._outcomes.completed += 1
        elif reason in (CANCELLED, sup.Shutdown()):
            self._outcomes.cancelled += 1
        else:
            self._outcomes.failed += 1
        if lease is not None:
            # Before the sequence's next holder is told, so the batch actor sees the end before the beginning.
            if self._batch is not None:
                sup.cast(self._batch, Drop(lease))
            self._sequences.release(lease)
        self._suspicion_ends(pid)
        if self._counters.interrupted_at is not None and not any(self._leases.values()):
            self._counters.interrupted_at = None  # nobody is left to go on
        self._admit()
        if not self._leases:
            drainers, self._drainers = self._drainers, []
            for drainer in drainers:
                sup.reply(drainer, None)

    def _port_down(self, reason: object, state: str) -> Any:
        """The worker is gone, with every sequence in it."""
        error = reason.error if isinstance(reason, WorkerGone) else WorkerDied(f"its port ended: {reason}")
        self._port, self._batch, self._served = None, None, None
        if state != "failed":  # there the reason is kept
            self._error = error
        self._worker_deaths += 1
        counts = self._interrupt(error, reason.unanswered if isinstance(reason, WorkerGone) else ())
        period, now = self._plan.config.restart_period, trio.current_time()
        self._deaths = recent_deaths((*self._deaths, now) if counts else self._deaths, now, period)
        if state == "loading" and self._waiters:
            return self._give_up(ModelLoadFailed(self._plan.name, str(error)))
        if state in ("serving", "loading"):  # loading with nobody waiting: this machine was itself restarted
            return sup.next_state("recovering", *self._reload_bound())
        return sup.keep_state(*(self._reload_bound() if state == "draining" else ()))

    # --- recovery -----------------------------------------------------------------------------------------

    def _interrupt(self, error: WorkerDied, unanswered: tuple[Unanswered, ...]) -> bool:
        """Tells everybody who ran that it goes on with the next worker, and finds out who may have killed this one.
        Whether its death counts against the model."""
        running = {lease: pid for pid, lease in self._leases.items() if lease is not None}
        for pid in running.values():
            sup.cast(pid, Interrupted())
        self._outcomes.recovered += len(running)
        if running and self._counters.interrupted_at is None:
            self._counters.interrupted_at = trio.current_time()
        in_flight: set[sup.Pid[Any]] = set()
        for work in unanswered:
            pid_of = running.get(Lease(work.sequence_id, work.generation))
            if pid_of is not None:
                in_flight.add(pid_of)
                before = self._unanswered.get(pid_of, work)
                position, token = max(before.position, work.position), before.token or work.token
                self._unanswered[pid_of] = attrs.evolve(work, position=max(position, 1), token=token)
        newest_first = [pid for pid in reversed(self._leases) if pid in in_flight]
        verdict = after_death(self._inquiry, newest_first, certain=certain_signal(error.how))
        self._inquiry = verdict.inquiry
        suspects = () if self._inquiry is None else self._inquiry.suspects
        self._unanswered = {pid: work for pid, work in self._unanswered.items() if pid in suspects}
        if verdict.culprit is not None:
            self._outcomes.poisoned += 1
            sup.cast(verdict.culprit, WorkerLost(PoisonRequest(error.how, error.last_words)))
        return verdict.counts

    def _place(self) -> None:
        """Sends whoever ran before the worker died to the batch actor: all of them, or who is tried alone."""
        batch, inquiry = self._batch, self._inquiry
        if self._served is None or batch is None:
            return
        tried = None if inquiry is None else inquiry.tried
        for pid, lease in self._leases.items():
            if lease is None or pid in self._placed or tried not in (None, pid):
                continue
            self._placed.add(pid)
            work, watch = self._unanswered.get(pid), None
            if inquiry is not None and pid in inquiry.suspects and work is not None:
                watch = Watch(work.position, work.token, hold=inquiry.alone)
            sup.cast(pid, Leased(lease, batch, watch))

    def _suspicion_ends(self, pid: sup.Pid[Any]) -> None:
        """A suspect was cleared, or has ended: the next is tried, or all go on."""
        before, self._inquiry = self._inquiry, without(self._inquiry, pid)
        if before is None or not before.alone or self._inquiry is before:
            return
        if self._inquiry is None and self._batch is not None:
            for held in self._placed:
                lease = self._leases[held]
                if lease is not None:
                    sup.cast(self._batch, Proceed(lease))
        self._place()
        self._admit()

    def _load_timed_out(self, state: str) -> Any:
        if state == "failed" or self._served is not None:
            return sup.keep_state()
        if self._port is not None:
            sup.exit(self._port, sup.Shutdown("load timed out"))
        limit = self._plan.config.load_timeout
        return self._give_up(ModelLoadFailed(self._plan.name, f"the load took longer than load_timeout={limit:g} s"))

    def _give_up(self, error: PaddockError) -> Any:
        self._error = error
        waiters, self._waiters = self._waiters, []
        for pid in self._leases:
            sup.cast(pid, WorkerLost(error))
        return sup.next_state("failed", *(sup.ReplyError(waiter, error) for waiter in waiters))

    def _statistics(self, state: str) -> ModelStatistics:
        outcomes, steps, use = self._outcomes, self._counters, self._use
        return ModelStatistics(
            name=self._plan.name,
            state=state,
            submitted=outcomes.submitted,
            queued=len(self._queue),
            running=len(self._leases) - len(self._queue),
            completed=outcomes.completed,
            failed=outcomes.failed,
            cancelled=outcomes.cancelled,
            refused=outcomes.refused,
            sequences=self._sequences.n_seq_max,
            sequences_free=self._sequences.free,
            decode_steps=steps.decode_steps,
            prefill_steps=steps.prefill_steps,
            decode_rows=steps.decode_rows,
            prefill_rows=steps.prefill_rows,
            failed_steps=steps.failed_steps,
            step_seconds=steps.step_seconds,
            **attrs.asdict(use),
            worker_starts=self._worker_starts,
            worker_deaths=self._worker_deaths,
            recoveries=steps.recoveries,
            recovered_requests=outcomes.recovered,
            recovery_seconds=steps.recovery_seconds,
            poisoned=outcomes.poisoned,
            worker_pid=None,
            last_error=None if self._error is None else str(self._error),
        )
