"""The port: the process (in OTP's sense) that owns a model's worker.

It starts a worker when the model machine says so, passes messages to it and answers back, and stops with the
reason :class:`~paddock.engine.worker.messages.WorkerGone` when the worker dies, so that its supervisor replaces it.
The worker's life is that of one linked process, the *attendant*: whatever ends the attendant ends the worker.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import msgspec
import psutil
import trio

import supervisors as sup
from paddock.cache.arena import Arena
from paddock.engine.worker import protocol
from paddock.engine.worker.framing import error_of
from paddock.engine.worker.heartbeat import Pace, Patience, heartbeat
from paddock.engine.worker.log import WorkerLog
from paddock.engine.worker.messages import (
    AbortDecode,
    CompileGrammar,
    LoadProgressed,
    LogitsDone,
    PingWorker,
    PortUp,
    RestoreBlocksDone,
    RunRestoreBlocks,
    RunSampleLogits,
    RunSaveBlocks,
    RunStep,
    SaveBlocksDone,
    StartWorker,
    StepDone,
    TokenizeText,
    Unanswered,
    WorkerGone,
    WorkerInfo,
    WorkerReady,
    WorkerRefused,
    WorkerSilent,
    WorkerStatus,
)
from paddock.engine.worker.process_transport import WORKER_COMMAND
from paddock.engine.worker.transport import STOP_SECONDS, Isolation, Transport, open_transport
from paddock.errors import ModelLoadFailed, PaddockError, WorkerDied
from paddock.telemetry.discretion import Discreet, discreet
from paddock.telemetry.loggers import get_logger

__all__ = ["Port"]

_log = get_logger("paddock.port")


@attrs.frozen
class _Opened:
    transport: Transport


@attrs.frozen
class _Refused:
    """The model could not be loaded; the worker has ended."""

    error: PaddockError


@attrs.frozen
class _Lost:
    error: WorkerDied


class Port(Discreet, sup.GenServer):
    """Owns the worker of one model.

    ``owner`` (the model machine) is told by casts: PortUp at once, then after its StartWorker the
    LoadProgressed and WorkerReady or WorkerRefused. ``load`` is what the worker is to load. ``environment``
    is added to the worker's environment, ``worker_command`` replaces the command that starts it (a wrapper
    such as ``numactl``). ``stop_seconds`` is the worker's time from Stop to its end before it is killed. ``arena`` is
    where workers save blocks; it outlives them and this port, and belongs to whoever made it. With ``patience`` a
    worker process that hangs is killed; a thread cannot be.
    """

    def __init__(
        self,
        owner: sup.Target,
        isolation: Isolation,
        load: protocol.Load,
        *,
        environment: Mapping[str, str] | None = None,
        worker_command: Sequence[str] = WORKER_COMMAND,
        stop_seconds: float = STOP_SECONDS,
        arena: Arena | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._owner = owner
        self._isolation: Isolation = isolation
        self._load = load
        self._environment = environment
        self._worker_command = worker_command
        self._stop_seconds = stop_seconds
        self._arena = arena
        self._patience = patience if isolation == "process" else None
        self._pace = None if self._patience is None else Pace(self._patience)
        self._hung = ""
        self._state = "idle"
        self._attendant: sup.Pid[Any] | None = None
        self._transport: Transport | None = None
        self._request_ids = itertools.count(1)
        self._calls: dict[int, sup.From] = {}
        self._steps: dict[int, RunStep | RunSampleLogits] = {}
        self._saves: dict[int, RunSaveBlocks] = {}
        self._restores: dict[int, RunRestoreBlocks] = {}

    async def init(self) -> None:
        sup.trap_exits(True)  # so that terminate runs, and the worker is gone before the port is, whoever ends it
        sup.cast(self._owner, PortUp(sup.self()))

    # --- to the worker ------------------------------------------------------------------------------------

    async def handle_call(self, request: object, from_: sup.From) -> sup.Reply | sup.NoReply:
        match request:
            case TokenizeText(text, add_special, parse_special):
                number = next(self._request_ids)
                self._ask(number, protocol.Tokenize(number, text, add_special, parse_special), from_)
            case CompileGrammar(grammar):
                number = next(self._request_ids)
                self._ask(number, protocol.CompileGrammar(number, grammar.parameter, grammar.text), from_)
            case PingWorker():
                number = next(self._request_ids)
                self._ask(number, protocol.Ping(number), from_)
            case WorkerInfo():
                return sup.Reply(self._status())
            case _:
                sup.reply_error(from_, TypeError(f"a port knows no call {type(request).__name__}"))
        return sup.NO_REPLY

    def _ask(
        self, number: int, message: protocol.Tokenize | protocol.CompileGrammar | protocol.Ping, from_: sup.From
    ) -> None:
        try:
            self._send(message)
        except PaddockError as error:
            sup.reply_error(from_, error)
        else:
            self._calls[number] = from_

    def _send(self, message: protocol.ToWorker) -> None:
        if self._transport is None or self._state != "ready":
            raise WorkerDied("it is not running", "wait until the model serves again")
        self._transport.send(message)

    def _status(self) -> WorkerStatus:
        os_pid = None if self._transport is None else self._transport.os_pid
        return WorkerStatus(
            isolation=self._isolation,
            state=self._state,
            os_pid=os_pid,
            rss=None if os_pid is None else _resident_bytes(os_pid),
            steps_in_flight=len(self._steps),
            calls_in_flight=len(self._calls),
        )

    async def handle_cast(self, message: object) -> sup.Stop | None:
        match message:
            case RunStep():
                self._run(message)
            case protocol.Stepped():
                self._stepped(message)
            case protocol.Tokenized(request_id, tokens, fault):
                self._answer(request_id, tokens if fault is None else error_of(fault))
            case protocol.GrammarCompiled(request_id, fault):
                self._answer(request_id, None if fault is None else error_of(fault))
            case RunSampleLogits():
                self._run(message)
            case protocol.LogitsSampled():
                self._logits_sampled(message)
            case RunSaveBlocks():
                self._save(message)
            case RunRestoreBlocks():
                self._restore(message)
            case protocol.BlocksSaved():
                self._saved(message)
            case protocol.BlocksRestored():
                self._restored(message)
            case protocol.Pong(request_id, decoding_seconds):
                self._answer(request_id, message)
                self._check_pace(decoding_seconds)
            case WorkerSilent(seconds):
                self._hang(f"it hung: no answer to a ping for {seconds:g} s, so it was killed")
            case AbortDecode():
                if self._transport is not None and self._state == "ready":
                    self._transport.send(protocol.Abort())
            case StartWorker(delay):
                self._start(delay)
            case _Opened(transport):
                self._transport = transport
            case protocol.LoadProgress(fraction):
                sup.cast(self._owner, LoadProgressed(fraction))
            case protocol.Loaded():
                self._state = "ready"
                if self._patience is not None:
                    sup.spawn_link(heartbeat, sup.self(), self._patience, label="heartbeat")
                sup.cast(self._owner, WorkerReady(sup.self(), message))
            case _Refused(error):
                self._state = "idle"
                self._transport = self._attendant = None
                sup.cast(self._owner, WorkerRefused(sup.self(), error))
            case _Lost(error):
                if self._hung:
                    error = WorkerDied(self._hung, error.last_words)
                self._fail_calls(error)
                return sup.Stop(WorkerGone(error, self._unanswered()))
            case _:
                raise TypeError(f"a port knows no cast {type(message).__name__}")
        return None

    async def handle_info(self, message: object) -> sup.Stop | None:
        if not isinstance(message, sup.ExitSignal):
            _log.warning("unexpected message", message=type(message).__name__)
            return None
        if message.reason == sup.Normal():
            return None  # an attendant that has told by a cast why it ended
        return sup.Stop(message.reason)

    def _run(self, work: RunStep | RunSampleLogits) -> None:
        number = next(self._request_ids)
        message: protocol.ToWorker
        if isinstance(work, RunStep):
            message = protocol.Step(number, work.releases, work.opens, work.chunks)
        else:
            message = protocol.SampleLogits(number, work.sequence_id, work.generation, work.logits)
        try:
            self._send(message)
        except PaddockError as error:
            if isinstance(work, RunStep):
                sup.cast(work.reply_to, StepDone(work.step_id, [], 0.0, error))
            else:
                sup.cast(work.reply_to, LogitsDone(work.step_id, None, error))
        else:
            self._steps[number] = work

    def _save(self, work: RunSaveBlocks) -> None:
        number = next(self._request_ids)
        try:
            self._send(protocol.SaveBlocks(number, work.sequence_id, work.generation, work.first_block, work.slots))
        except PaddockError as error:
            sup.cast(work.reply_to, SaveBlocksDone(work.work_id, [], 0.0, 0.0, error))
        else:
            self._saves[number] = work

    def _restore(self, work: RunRestoreBlocks) -> None:
        number = next(self._request_ids)
        try:
            self._send(protocol.RestoreBlocks(number, work.sequence_id, work.generation, work.blocks, work.n_tokens))
        except PaddockError as error:
            sup.cast(work.reply_to, RestoreBlocksDone(work.work_id, 0, [], 0.0, 0.0, error))
        else:
            self._restores[number] = work

    # --- from the worker ----------------------------------------------------------------------------------

    def _stepped(self, message: protocol.Stepped) -> None:
        work = self._steps.pop(message.request_id, None)
        if work is not None:
            if self._pace is not None and isinstance(work, RunStep):
                self._pace.measured(_rows_of(work), message.seconds)
            error = None if message.fault is None else error_of(message.fault)
            done = StepDone(work.step_id, message.sampled, message.seconds, error, message.positions)
            sup.cast(work.reply_to, done)

    def _logits_sampled(self, message: protocol.LogitsSampled) -> None:
        work = self._steps.pop(message.request_id, None)
        if work is not None:
            error = None if message.fault is None else error_of(message.fault)
            sup.cast(work.reply_to, LogitsDone(work.step_id, message.sampled, error))

    def _saved(self, message: protocol.BlocksSaved) -> None:
        work = self._saves.pop(message.request_id, None)
        if work is not None:
            error = None if message.fault is None else error_of(message.fault)
            done = SaveBlocksDone(work.work_id, message.checksums, message.seconds, message.decode_seconds, error)
            sup.cast(work.reply_to, done)

    def _restored(self, message: protocol.BlocksRestored) -> None:
        work = self._restores.pop(message.request_id, None)
        if work is not None:
            error = None if message.fault is None else error_of(message.fault)
            n_tokens, bad = message.n_tokens, message.bad
            done = RestoreBlocksDone(work.work_id, n_tokens, bad, message.seconds, message.decode_seconds, error)
            sup.cast(work.reply_to, done)

    def _unanswered(self) -> tuple[Unanswered, ...]:
        found: list[Unanswered] = []
        for step in self._steps.values():
            if isinstance(step, RunSampleLogits):
                found.append(Unanswered(step.sequence_id, step.generation, token=True))
                continue
            found += [
                Unanswered(chunk.sequence_id, chunk.generation, chunk.position + len(chunk.tokens))
                for chunk in step.chunks
            ]
            found += [Unanswered(opening.sequence_id, opening.generation) for opening in step.opens]
        found += [Unanswered(save.sequence_id, save.generation) for save in self._saves.values()]
        found += [Unanswered(back.sequence_id, back.generation) for back in self._restores.values()]
        return tuple(found)

    def _answer(self, request_id: int, answer: object) -> None:
        from_ = self._calls.pop(request_id, None)
        if from_ is None:
            return
        if isinstance(answer, PaddockError):
            sup.reply_error(from_, answer)
        else:
            sup.reply(from_, answer)

    def _fail_calls(self, error: PaddockError) -> None:
        calls, self._calls = self._calls, {}
        for from_ in calls.values():
            sup.reply_error(from_, error)

    # --- a worker that hangs ------------------------------------------------------------------------------

    def _check_pace(self, decoding_seconds: float) -> None:
        if self._pace is None:
            return
        rows = max((_rows_of(step) for step in self._steps.values() if isinstance(step, RunStep)), default=1)
        if decoding_seconds > (deadline := self._pace.deadline(rows)):
            self._hang(f"it hung: a step of {rows} rows took longer than {deadline:g} s, so it was killed")

    def _hang(self, how: str) -> None:
        if self._transport is not None and not self._hung:
            self._hung = how
            self._transport.kill()

    # --- the worker's life --------------------------------------------------------------------------------

    def _start(self, delay: float) -> None:
        if self._state != "idle":
            _log.warning("worker is there already", state=self._state, model=self._load.path)
            return
        self._state = "starting"
        self._attendant = sup.spawn_link(
            attend,
            sup.self(),
            delay,
            self._isolation,
            self._load,
            self._environment,
            self._worker_command,
            self._stop_seconds,
            self._arena,
        )

    async def terminate(self, reason: object) -> None:
        """Ends the worker and waits for its end, shielded, within the port's shutdown time."""
        self._fail_calls(WorkerDied("its port stopped"))
        attendant, self._attendant = self._attendant, None
        if attendant is None:
            return
        sup.exit(attendant, sup.Shutdown())
        with sup.cleanup_scope():
            await sup.wait_down(attendant)


def _rows_of(step: RunStep) -> int:
    return sum(len(chunk.tokens) for chunk in step.chunks)


@discreet
async def attend(
    port: sup.Pid[Any],
    delay: float,
    isolation: Isolation,
    load: protocol.Load,
    environment: Mapping[str, str] | None,
    worker_command: Sequence[str],
    stop_seconds: float,
    arena: Arena | None = None,
) -> None:
    """The attendant: waits, opens a worker, casts to ``port`` what comes from it. Cancelled, it ends the
    worker."""
    await trio.sleep(delay)
    log = WorkerLog(trio.current_time)
    refusal: PaddockError | None = None
    try:
        async with open_transport(
            isolation,
            environment=environment,
            command=worker_command,
            stop_seconds=stop_seconds,
            arena_fd=None if arena is None else arena.fd,
        ) as transport:
            sup.cast(port, _Opened(transport))
            transport.send(_encodable(load))
            while refusal is None:
                message = await transport.receive()
                if isinstance(message, protocol.Log):
                    log.write(message)
                elif isinstance(message, protocol.LoadFailed):
                    refusal = error_of(message.fault)
                else:
                    sup.cast(port, message)
    except WorkerDied as error:
        sup.cast(port, _Lost(error))
        return
    except PaddockError as error:
        refusal = error
    except OSError as error:
        refusal = ModelLoadFailed(Path(load.path).stem, f"no worker could be started: {error}")
    assert refusal is not None
    sup.cast(port, _Refused(refusal))


def _encodable(load: protocol.Load) -> protocol.Load:
    """A file name need not be Unicode; MessagePack's text has to be."""
    shown = load.path.encode("utf-8", "backslashreplace").decode()
    if shown == load.path:
        return load
    return msgspec.structs.replace(load, path=shown, raw_path=os.fsencode(load.path))


def _resident_bytes(os_pid: int) -> int | None:
    try:
        return int(psutil.Process(os_pid).memory_info().rss)
    except psutil.Error:
        return None
