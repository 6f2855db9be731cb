"""Counters of one model and the frozen view of them."""

from __future__ import annotations

import attrs

__all__ = ["ModelStatistics", "StepCounters"]


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
    step_seconds: float = 0.0
    """Time inside ``decode_and_sample_batch``, as the worker measured it."""


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
    worker_starts: int
    worker_deaths: int
    worker_pid: int | None
    last_error: str | None
