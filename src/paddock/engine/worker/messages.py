"""What the processes of one model's subtree say to each other.

These are values inside one Python process (never on the wire: that is ``protocol.py``), so they may hold
pids, exceptions and protocol values. Every one is frozen: a mailbox may hold it as long as it likes. What is text, or
was made of text, stays out of the reprs: reports of a crash show the last message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

import supervisors as sup
from paddock.engine.worker import protocol
from paddock.errors import PaddockError, WorkerDied
from paddock.native.batch import Chunk, Sampled
from paddock.sampling.grammars import Grammar

__all__ = [
    "AbortDecode",
    "CompileGrammar",
    "LoadProgressed",
    "LogitsDone",
    "PingWorker",
    "PortUp",
    "RestoreBlocksDone",
    "RunRestoreBlocks",
    "RunSampleLogits",
    "RunSaveBlocks",
    "RunStep",
    "SaveBlocksDone",
    "StartWorker",
    "StepDone",
    "TokenizeText",
    "Unanswered",
    "WorkerGone",
    "WorkerInfo",
    "WorkerReady",
    "WorkerRefused",
    "WorkerSilent",
    "WorkerStatus",
]


# --- from the port to the model machine (casts) ---------------------------------------------------------


@attrs.frozen
class PortUp:
    """A port (a new one after each restart) is up, has no worker yet and waits for :class:`StartWorker`."""

    port: sup.Pid[Any]


@attrs.frozen
class LoadProgressed:
    """How far the model is loaded: 0.0 to 1.0."""

    fraction: float


@attrs.frozen
class WorkerReady:
    """The worker has loaded the model and takes steps."""

    port: sup.Pid[Any]
    loaded: protocol.Loaded


@attrs.frozen
class WorkerRefused:
    """The worker could not load the model; it has been closed, the port is idle and takes another
    StartWorker."""

    port: sup.Pid[Any]
    error: PaddockError


# --- to the port ----------------------------------------------------------------------------------------


@attrs.frozen
class StartWorker:
    """Cast: after ``delay`` seconds spawn a worker and load the model. Ignored while there is a worker."""

    delay: float = 0.0


@attrs.frozen
class TokenizeText:
    """Call, answered with ``list[int]``; raises a typed error, WorkerDied when there is no worker (any
    more)."""

    text: bytes = attrs.field(repr=False)
    add_special: bool = True
    parse_special: bool = False


@attrs.frozen
class CompileGrammar:
    """Call, answered with None when the worker has compiled it; raises InvalidParameter where it cannot, and as
    :class:`TokenizeText`."""

    grammar: Grammar


@attrs.frozen
class RunStep:
    """Cast, answered by the cast :class:`StepDone` to ``reply_to``; steps run in the order they were cast.

    No answer comes when the worker dies: the port then stops with the reason :class:`WorkerGone`.
    """

    reply_to: sup.Pid[Any]
    step_id: int
    releases: list[protocol.SequenceRef]
    opens: list[protocol.OpenSequence] = attrs.field(repr=False)
    chunks: list[Chunk] = attrs.field(repr=False)


@attrs.frozen
class StepDone:
    """One step's result. ``error`` is None when the batch was computed; ``seconds`` is the worker's own time.

    ``positions`` is filled when there is an error: the tokens that each sequence of the batch holds now, by
    sequence id (InvalidBatch changes none of them, an aborted decode call loses some).
    """

    step_id: int
    sampled: list[Sampled] = attrs.field(repr=False)
    seconds: float
    error: PaddockError | None = None
    positions: Mapping[int, int] = attrs.field(factory=dict)


@attrs.frozen
class RunSampleLogits:
    """Cast, answered by the cast :class:`LogitsDone`; ``logits`` is a float32 row, little endian, n_vocab
    long."""

    reply_to: sup.Pid[Any]
    step_id: int
    sequence_id: int
    generation: int
    logits: bytes = attrs.field(repr=False)


@attrs.frozen
class LogitsDone:
    step_id: int
    sampled: Sampled | None = attrs.field(repr=False)
    error: PaddockError | None = None


@attrs.frozen
class RunSaveBlocks:
    """Cast, answered by the cast :class:`SaveBlocksDone`: :class:`paddock.engine.worker.protocol.SaveBlocks`.

    The slots are allocated in the arena and need not be committed. It reads the sequence as the steps cast before
    have left it; a step cast behind it may release the sequence. No answer when the worker dies, as for steps.
    """

    reply_to: sup.Pid[Any]
    work_id: int
    sequence_id: int
    generation: int
    first_block: int
    slots: list[int]


@attrs.frozen
class SaveBlocksDone:
    """``checksums``, one for each slot, where ``error`` is None. WorkerBusy: later. ``seconds`` are the worker's own,
    ``decode_seconds`` those in which it could not decode."""

    work_id: int
    checksums: list[bytes] = attrs.field(repr=False)
    seconds: float
    decode_seconds: float
    error: PaddockError | None = None


@attrs.frozen
class RunRestoreBlocks:
    """Cast, answered by the cast :class:`RestoreBlocksDone`: :class:`paddock.engine.worker.protocol.RestoreBlocks`.

    The sequence must have been opened by a step cast before, and no step may touch it until the answer.
    """

    reply_to: sup.Pid[Any]
    work_id: int
    sequence_id: int
    generation: int
    blocks: list[protocol.BlockRef] = attrs.field(repr=False)
    n_tokens: int


@attrs.frozen
class RestoreBlocksDone:
    """``n_tokens`` is what the sequence holds: all that were asked for, or 0 where ``bad`` (indexes of blocks that
    are not what their checksums say) is not empty or ``error`` is set."""

    work_id: int
    n_tokens: int
    bad: list[int]
    seconds: float
    decode_seconds: float
    error: PaddockError | None = None


@attrs.frozen
class AbortDecode:
    """Cast: end the decode calls of all steps cast before; those not finished answer with DecodeAborted."""


@attrs.frozen
class PingWorker:
    """Call, answered with :class:`paddock.engine.worker.protocol.Pong`, also while the worker decodes."""


@attrs.frozen
class WorkerSilent:
    """Cast from the port's heartbeat: for so many seconds the worker has answered no ping."""

    seconds: float


@attrs.frozen
class WorkerInfo:
    """Call, answered with :class:`WorkerStatus` at once, whatever the worker does."""


@attrs.frozen
class WorkerStatus:
    """``state`` is idle (no worker), starting (delay, spawn, load) or ready.

    ``os_pid`` is the worker's process id and ``rss`` its resident bytes; both None without a process of its
    own.
    """

    isolation: str
    state: str
    os_pid: int | None
    rss: int | None
    steps_in_flight: int
    calls_in_flight: int


# --- exit reason ----------------------------------------------------------------------------------------


@attrs.frozen
class Unanswered:
    """Work of one sequence that the worker was sent, and died with.

    ``position``: how many tokens the sequence would hold; 0 where nothing of it was to be computed. ``token``: whether
    a token was to be sampled from a row that it was sent.
    """

    sequence_id: int
    generation: int
    position: int = 0
    token: bool = False


@attrs.frozen
class WorkerGone:
    """The reason a port stops with when its worker died, so that its supervisor restarts it."""

    error: WorkerDied
    unanswered: tuple[Unanswered, ...] = ()
