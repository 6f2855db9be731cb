"""Counters of one model and the frozen view of them."""

from __future__ import annotations

import attrs

__all__ = ["CacheUse", "ModelStatistics", "StepCounters"]


@attrs.define
class StepCounters:
    """Counted by the batch actor; owned by the model's subtree, so they survive the actor's restarts."""

    decode_steps: int = 0
    """Decode calls that held generated rows."""
    prefill_steps: int = 0
    """Decode calls that held only prompt rows."""
    decode_rows: int = 0
    prefill_rows: int = 0
    failed_steps: int = 0
    recoveries: int = 0
    recovery_seconds: float = 0.0
    interrupted_at: float | None = None
    """When the worker died with running requests, on trio's clock; None once one of them has its next token."""
    step_seconds: float = 0.0
    """Time inside ``decode_and_sample_batch``, as the worker measured it."""


@attrs.define
class CacheUse:
    """What this model's sequences took from the KV store and gave to it. Counted and owned like StepCounters.

    Seconds are the worker's own; those "on the decode thread" are the ones in which it could not decode.
    """

    restores: int = 0
    cached_tokens: int = 0
    failed_restores: int = 0
    corrupt_blocks: int = 0
    restore_seconds: float = 0.0
    restore_decode_seconds: float = 0.0
    saves: int = 0
    saved_blocks: int = 0
    failed_saves: int = 0
    refused_blocks: int = 0
    save_seconds: float = 0.0
    save_decode_seconds: float = 0.0


@attrs.frozen(kw_only=True)
class ModelStatistics:
    """A snapshot. ``submitted == completed + failed + cancelled + queued + running`` holds at every moment."""

    name: str
    state: str
    submitted: int
    queued: int
    running: int
    completed: int
    failed: int
    cancelled: int
    refused: int
    """Requests that found the queue full; not part of ``submitted``."""
    sequences: int
    sequences_free: int
    decode_steps: int
    prefill_steps: int
    decode_rows: int
    prefill_rows: int
    failed_steps: int
    step_seconds: float
    restores: int
    """Requests whose prompt's beginning was restored from the cache."""
    cached_tokens: int
    """Tokens restored instead of computed; ``prefill_rows`` and ``decode_rows`` count those computed."""
    failed_restores: int
    """Restores that the worker refused; their requests computed their prompts."""
    corrupt_blocks: int
    """Blocks that were not what was saved; dropped, and computed again."""
    restore_seconds: float
    restore_decode_seconds: float
    """Those of them in which nothing could be decoded."""
    saves: int
    saved_blocks: int
    failed_saves: int
    refused_blocks: int
    """Blocks that were not saved for want of room."""
    save_seconds: float
    save_decode_seconds: float
    worker_starts: int
    worker_deaths: int
    recoveries: int
    """Deaths of a worker after which requests that were running went on."""
    recovered_requests: int
    """How many requests went on, counted at each death."""
    recovery_seconds: float
    """From each of these deaths to the first new token; with the next restart's delay, the load and the restores."""
    poisoned: int
    """Requests that brought the worker down, and failed with ``PoisonRequest``; among ``failed``."""
    worker_pid: int | None
    last_error: str | None
