"""What request actors, the model machine and the batch actor say to each other about one request.

Prompts, tokens and logits stay out of the reprs: reports of a crash show the last message.
"""

from __future__ import annotations

from typing import Any

import attrs

import supervisors as sup
from paddock.cache.keys import Chain
from paddock.engine.batching.sequences import Lease
from paddock.engine.served import ServedModel
from paddock.errors import PaddockError
from paddock.native.batch import Sampled
from paddock.sampling.parameters import SamplingParameters

__all__ = [
    "Admit",
    "AwaitServing",
    "BatchUp",
    "CancelRequest",
    "Cleared",
    "DeadlinePassed",
    "Drain",
    "Drop",
    "Enlist",
    "Generated",
    "GrammarReady",
    "HookDone",
    "HookLogits",
    "Interrupted",
    "Leased",
    "MachineStatistics",
    "Pause",
    "PrefillProgress",
    "PrefixRestored",
    "Proceed",
    "Resume",
    "RowFailed",
    "SampleHooked",
    "Serve",
    "TextReady",
    "Tokenized",
    "UseWorker",
    "Watch",
    "WorkerLost",
]


# --- request -> machine ---------------------------------------------------------------------------------


@attrs.frozen
class Enlist:
    """Call: a place in the admission queue. Raises QueueFull, ModelUnavailable or ModelNotLoaded."""

    request: sup.Pid[Any]
    priority: int


@attrs.frozen
class TextReady:
    """Cast: the request's prompt is tokenized and fits; it may be given a sequence."""

    request: sup.Pid[Any]


# --- machine -> request ---------------------------------------------------------------------------------


@attrs.frozen
class UseWorker:
    """Cast: the model serves through this port; sent again after each recovery until the prompt is tokenized."""

    port: sup.Pid[Any]
    served: ServedModel


@attrs.frozen
class Watch:
    """How far a suspect has to get to be cleared: ``position`` tokens in the cache, and with ``token`` one more of
    the reply. With ``hold`` it waits there for :class:`Proceed`."""

    position: int
    token: bool
    hold: bool


@attrs.frozen
class Leased:
    """Cast: the request holds this sequence of this batch actor's context.

    Again after the worker has died, with the same lease and the next batch actor: the request goes on there.
    ``watch`` is set for one that is suspected of that death.
    """

    lease: Lease
    batch: sup.Pid[Any]
    watch: Watch | None = None


@attrs.frozen
class Interrupted:
    """Cast: the worker died with this request's sequence; :class:`Leased` follows when there is another one."""


@attrs.frozen
class WorkerLost:
    """Cast: this request cannot be computed any more."""

    error: PaddockError


# --- handle and helpers -> request ----------------------------------------------------------------------


@attrs.frozen
class CancelRequest:
    origin: str


@attrs.frozen
class DeadlinePassed:
    pass


@attrs.frozen
class Tokenized:
    """From the one-shot process that tokenized the prompt."""

    tokens: list[int] | None = attrs.field(repr=False)
    error: PaddockError | None = None
    chain: Chain | None = attrs.field(default=None, repr=False)
    """With its keys hashed; None where the model has no cache."""


@attrs.frozen
class GrammarReady:
    """From the one-shot process that had the request's grammar compiled; ``error`` is why it cannot be."""

    worker: UseWorker
    error: PaddockError | None = None


@attrs.frozen
class HookDone:
    """From the one-shot process that ran the request's logits processor; ``logits`` is float32 bytes."""

    logits: bytes | None = attrs.field(repr=False)
    error: PaddockError | None = None


# --- request -> batch -----------------------------------------------------------------------------------


@attrs.frozen(eq=False, kw_only=True)
class Admit:
    """Cast: run this request. ``sampling`` has its seed and ``max_tokens`` resolved.

    ``generated`` has one byte for each prompt token: 1 for one that was generated once, in an earlier turn; None where
    all are prompt. ``reply`` and ``sampler_state`` are those of a request that goes on: the tokens generated so far
    and the state that came with the last of them. ``max_tokens`` counts them too.
    """

    request: sup.Pid[Any]
    lease: Lease
    prompt: list[int] = attrs.field(repr=False)
    sampling: SamplingParameters = attrs.field(repr=False)
    max_tokens: int
    end_tokens: frozenset[int]
    """Tokens that end the request when sampled: end-of-text (unless ignored) and the stop tokens."""
    priority: int
    hooked: bool
    generated: bytes | None = attrs.field(default=None, repr=False)
    reply: list[int] = attrs.field(factory=list, repr=False)
    sampler_state: bytes = attrs.field(default=b"", repr=False)
    chain: Chain | None = attrs.field(default=None, repr=False)
    """Of prompt and reply, the batch actor's own until it ends; None: nothing is restored and nothing saved."""
    watch: Watch | None = None
    """Set for a request that is suspected of a worker's death."""


@attrs.frozen
class Drop:
    """Cast: take this lease's rows out of the batch and free its sequence."""

    lease: Lease


@attrs.frozen
class Pause:
    lease: Lease


@attrs.frozen
class Resume:
    lease: Lease


@attrs.frozen
class SampleHooked:
    """Cast: sample this lease's next token from these logits (float32 bytes)."""

    lease: Lease
    logits: bytes = attrs.field(repr=False)


@attrs.frozen
class Proceed:
    """Cast machine -> batch: this lease's request was held where it was cleared; it goes on."""

    lease: Lease


# --- batch -> request -----------------------------------------------------------------------------------


@attrs.frozen
class PrefillProgress:
    done: int
    total: int


@attrs.frozen
class PrefixRestored:
    """Cast: so many of the request's first tokens came from the cache."""

    tokens: int


@attrs.frozen
class Generated:
    """Cast: one sampled token; ``finish`` is set with the last one: "stop" or "length"."""

    sampled: Sampled = attrs.field(repr=False)
    finish: str | None


@attrs.frozen
class HookLogits:
    """Cast: the raw logits of the next token, for the request's own processor."""

    logits: bytes = attrs.field(repr=False)


@attrs.frozen
class RowFailed:
    """Cast: the batch could not compute this request's rows; they have been dropped."""

    error: PaddockError


# --- batch and runtime -> machine -----------------------------------------------------------------------


@attrs.frozen
class BatchUp:
    """Cast: a batch actor (a new one after each restart) is up and waits for :class:`Serve`."""

    batch: sup.Pid[Any]


@attrs.frozen
class Cleared:
    """Cast batch -> machine: a suspect got past what the worker died with."""

    request: sup.Pid[Any]


@attrs.frozen
class Serve:
    """Cast machine -> batch: the worker behind this port is ready."""

    port: sup.Pid[Any]
    served: ServedModel


@attrs.frozen
class AwaitServing:
    """Call: answered with ServedModel once the model serves; raises why it never will."""


@attrs.frozen
class Drain:
    """Call: take no more requests; answered when none is left. ``cancel`` ends those that run."""

    cancel: bool


@attrs.frozen
class MachineStatistics:
    """Call: answered with :class:`paddock.engine.statistics.ModelStatistics`."""
