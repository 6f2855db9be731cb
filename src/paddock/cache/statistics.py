"""What the store has done and holds."""

from __future__ import annotations

import attrs

__all__ = ["CacheCounters", "CacheStatistics"]


@attrs.define
class CacheCounters:
    """Counted since the store was made; a restart of its processes goes on counting."""

    hits: int = 0
    misses: int = 0
    reused_tokens: int = 0
    saved_blocks: int = 0
    known_blocks: int = 0
    spilled_blocks: int = 0
    fetched_blocks: int = 0
    evicted_ram_blocks: int = 0
    lost_blocks: int = 0
    evicted_disk_blocks: int = 0
    verification_failures: int = 0
    refused_reservations: int = 0
    disk_errors: int = 0


@attrs.frozen(kw_only=True)
class CacheStatistics:
    """The store as it stands; bytes are exact counts, not estimates."""

    hits: int
    """Look-ups that found at least one block."""
    misses: int
    """Look-ups that found none."""
    reused_tokens: int
    """Tokens in the blocks that look-ups have found."""
    saved_blocks: int
    """Blocks published by models."""
    known_blocks: int
    """Blocks that were saved although they were in RAM already."""
    spilled_blocks: int
    """Blocks written to disk."""
    fetched_blocks: int
    """Blocks read from disk."""
    evicted_ram_blocks: int
    """Blocks that made room in RAM; most of them are on disk."""
    lost_blocks: int
    """Those of them that were not on disk."""
    evicted_disk_blocks: int
    """Blocks that made room on disk."""
    verification_failures: int
    """Blocks that were dropped because what is stored is not what was saved."""
    refused_reservations: int
    """Slots that were asked for and could not be had within the budget."""
    disk_errors: int
    """Times that the folder failed."""
    ram_bytes: int
    """Bytes of slots that are handed out, whether or not a block is in them yet."""
    ram_bytes_max: int
    """The most that they ever were."""
    ram_budget_bytes: int
    ram_blocks: int
    disk_bytes: int
    """Bytes of files, those being written included."""
    disk_bytes_max: int
    disk_budget_bytes: int
    """0 where there is no disk tier."""
    disk_blocks: int
    due_blocks: int
    """Blocks in RAM that wait to be written to disk."""
    pinned_blocks: int
    """Blocks that look-ups hold at this moment."""
    disk: str
    """State of the disk tier: "off", "opening", "on", "read-only", "failed"."""
    disk_problem: str | None
    """Why it is read-only or failed."""
