"""The save policy: which blocks of a running sequence go to the KV store now. A pure function of counts.

Saved are full blocks only, each once, in order:

* when the prompt has been computed, all of its blocks: the next request that begins alike needs them most;
* while the reply grows, every ``save_every`` tokens, or more often where steps are slow (:func:`save_interval`), so
  that what a crash costs is computed again in about a second;
* at the end of a request, at eviction and at shutdown, what is left.

A long prompt is not saved piece by piece while it is computed: a save reads the whole state of a sequence, which would
make its cost grow with the square of its length.
"""

from __future__ import annotations

from typing import Final

import attrs

__all__ = ["NEVER", "RECOMPUTE_SECONDS", "SavePolicy", "blocks_to_save", "next_save", "save_interval"]

NEVER: Final = 1 << 62

RECOMPUTE_SECONDS: Final = 1.0


@attrs.frozen
class SavePolicy:
    """``save_every``: generated tokens between two saves; 0 for saves only after the prompt and at the end."""

    block_tokens: int
    save_every: int


def save_interval(save_every: int, block_tokens: int, step_seconds: float) -> int:
    """Tokens between two saves: ``save_every``, and fewer where more than :data:`RECOMPUTE_SECONDS` of steps would have
    to be computed again, each of ``step_seconds``; but a block at least, as less is not saved."""
    if save_every * step_seconds <= RECOMPUTE_SECONDS:
        return save_every
    return min(save_every, max(block_tokens, int(RECOMPUTE_SECONDS / step_seconds)))


def blocks_to_save(policy: SavePolicy, *, saved: int, cached: int, prompt_length: int, ending: bool) -> range:
    """The blocks to save now, by number; empty for none.

    ``saved`` counts the leading blocks that need no save: restored, saved, being saved, or given up. ``cached`` is how
    many tokens the sequence holds, ``ending`` whether it is about to be released.
    """
    full = cached // policy.block_tokens
    nothing = range(full, full)
    if full <= saved:
        return nothing
    if ending:
        return range(saved, full)
    if cached < prompt_length:
        return nothing
    if saved < prompt_length // policy.block_tokens:
        return range(saved, full)
    since = cached - max(prompt_length, saved * policy.block_tokens)
    return range(saved, full) if 0 < policy.save_every <= since else nothing


def next_save(policy: SavePolicy, *, saved: int, prompt_length: int) -> int:
    """The fewest tokens in the cache with which a running request has something to save; NEVER before its end.

    So that a token costs one comparison.
    """
    if saved < prompt_length // policy.block_tokens:
        return prompt_length
    if policy.save_every == 0:
        return NEVER
    return max(
        max(prompt_length, saved * policy.block_tokens) + policy.save_every,
        (saved + 1) * policy.block_tokens,
    )
