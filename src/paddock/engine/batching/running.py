"""One request as the batch actor sees it: its tokens, how many of them are in the cache, and what it waits for.

Plain state without trio. Law 1: every token that enters a sequence goes through :meth:`Running.append`, so that the
token list, the flags, the cache position and the limits cannot part.
"""

from __future__ import annotations

from typing import Any

import attrs

import supervisors as sup
from paddock.cache.keys import Chain
from paddock.engine.batching.policy import DecodeRow, Plan, PrefillRow
from paddock.engine.batching.recipes import Recipe
from paddock.engine.batching.sequences import Lease
from paddock.engine.requests.messages import Admit, Watch
from paddock.engine.worker.protocol import OpenSequence
from paddock.native.batch import Chunk, SampleMode
from paddock.sampling.parameters import SamplingParameters

__all__ = ["Running", "chunks_of", "rows_of", "sampler_history"]

_GENERATED = 1


@attrs.define(eq=False)
class Running:
    """``tokens`` are the prompt and the reply so far; the first ``cached`` of them are in the KV cache.

    ``flags`` says for each token how it is computed: 1 as generated, in a row of its own; 0 as prompt, in chunks. Where
    the recipe's rows do not depend on that, all that was known on admission counts as prompt.
    """

    request: sup.Pid[Any]
    lease: Lease
    tokens: list[int]
    flags: bytearray
    prompt_length: int
    max_tokens: int
    end_tokens: frozenset[int]
    sampling: SamplingParameters
    sampler_state: bytes
    priority: int
    hooked: bool
    last_served: int
    """Number of the step that served it last; on admission the current one."""
    chain: Chain | None = None
    """Of all tokens up to the last save; None where nothing is restored and nothing saved."""
    opened: bool = False
    """Whether the worker has been told to open its sequence, so that the sequence has to be released."""
    cached: int = 0
    saved_blocks: int = 0
    """Leading blocks that need no save: restored, saved, or being saved."""
    save_at: int = 0
    """With how many tokens in the cache there may be something to save."""
    unsaveable: bool = False
    """The store had no room, so that blocks after these would never be found."""
    restoring: bool = False
    """A stored prefix is looked for or put in place; it has no row until that has ended."""
    paused: bool = False
    awaiting_hook: bool = False
    """Its logits are with the request's own processor; it has no row until they come back."""

    watch: Watch | None = None
    """A suspect of a worker's death, until it is cleared. Whether its consumer reads does not matter meanwhile."""
    replied: int = 0
    """Tokens of the reply on admission."""
    held: bool = False
    """Cleared, and waiting until others have been tried."""

    @classmethod
    def admitted(cls, message: Admit, step: int, recipe: Recipe) -> Running:
        flags = bytearray(len(message.prompt) + len(message.reply))
        if recipe.separates_generated:
            flags[: len(message.prompt)] = message.generated or bytes(len(message.prompt))
            flags[len(message.prompt) :] = bytes([_GENERATED]) * len(message.reply)
        return cls(
            request=message.request,
            lease=message.lease,
            tokens=[*message.prompt, *message.reply],
            flags=flags,
            prompt_length=len(message.prompt),
            max_tokens=message.max_tokens,
            end_tokens=message.end_tokens,
            sampling=message.sampling,
            sampler_state=message.sampler_state,
            priority=message.priority,
            hooked=message.hooked,
            last_served=step,
            chain=message.chain,
            watch=message.watch,
            replied=len(message.reply),
        )

    @property
    def generated(self) -> int:
        """How many tokens the reply has."""
        return len(self.tokens) - self.prompt_length

    @property
    def rest(self) -> int:
        """How many known tokens are not in the cache."""
        return len(self.tokens) - self.cached

    @property
    def prefill_remaining(self) -> int:
        """Prompt tokens in a row that are next: the rest of a segment, which is a maximal run of them. 0 where a
        generated token is next, or nothing."""
        end = self.flags.find(_GENERATED, self.cached)
        return (len(self.flags) if end < 0 else end) - self.cached

    @property
    def can_decode(self) -> bool:
        """Whether a generated token is next, and may be computed. One that nothing is sampled from needs no reader."""
        if self.restoring or self.held or self.awaiting_hook or not self.rest or self.prefill_remaining:
            return False
        return not self.paused or self.rest > 1 or self.watch is not None

    @property
    def can_prefill(self) -> bool:
        """Whether prompt tokens are next, and may be computed."""
        return not self.restoring and not self.held and self.prefill_remaining > 0

    def clear(self) -> bool:
        """Whether a suspect has been cleared just now."""
        watch = self.watch
        if watch is None or self.cached < watch.position or (watch.token and self.generated <= self.replied):
            return False
        self.watch, self.held = None, watch.hold
        return True

    def append(self, token: int) -> str | None:
        """Takes a sampled token; returns why the request ends with it ("stop", "length"), or None."""
        self.tokens.append(token)
        self.flags.append(_GENERATED)
        if token in self.end_tokens:
            return "stop"
        return "length" if self.generated >= self.max_tokens else None

    def extend_chain(self) -> Chain | None:
        """The chain, with all tokens that were generated since it was extended last."""
        if self.chain is not None:
            self.chain.append_generated(self.tokens[len(self.chain) :])
        return self.chain

    def chunk(self, length: int) -> Chunk:
        """The next ``length`` tokens that are not in the cache; the last known one is sampled from."""
        end = self.cached + length
        sample = SampleMode.NONE
        if end == len(self.tokens):
            sample = SampleMode.LOGITS if self.hooked else SampleMode.TOKEN
        return Chunk(
            self.lease.sequence_id,
            self.lease.generation,
            self.cached,
            self.tokens[self.cached : end],
            int(sample),
        )

    def opening(self) -> OpenSequence:
        """What the worker needs to know of this request before its first row."""
        return OpenSequence(
            self.lease.sequence_id,
            self.lease.generation,
            self.sampling.to_mapping(),
            history=sampler_history(self.sampling, self.tokens, self.generated),
            generated=self.generated,
            sampler_state=self.sampler_state,
        )


def sampler_history(sampling: SamplingParameters, tokens: list[int], generated: int = 0) -> list[int]:
    """As many of the last ``tokens`` (the prompt's among them) as penalties and DRY look back on; where there is a
    grammar, the ``generated`` ones at least."""
    windows: list[int] = [generated] if sampling.constraint is not None else []
    if sampling.penalizes:
        windows.append(sampling.repeat_last_n)
    if sampling.dry_multiplier:
        windows.append(sampling.dry_last_n)
    if any(window < 0 for window in windows):
        return list(tokens)
    window = max(windows, default=0)
    return tokens[-window:] if window else []


def rows_of(running: dict[int, Running]) -> tuple[list[DecodeRow], list[PrefillRow]]:
    """What the batch policy needs to know of everything that could run now."""
    decode: list[DecodeRow] = []
    prefill: list[PrefillRow] = []
    for sequence_id, entry in running.items():
        if entry.can_decode:
            decode.append(DecodeRow(sequence_id, entry.priority, entry.last_served))
        elif entry.can_prefill:
            prefill.append(PrefillRow(sequence_id, entry.priority, entry.last_served, entry.prefill_remaining))
    return decode, prefill


def chunks_of(plan: Plan, running: dict[int, Running]) -> list[Chunk]:
    """The plan's rows, ordered by sequence id, as llama.cpp keeps contiguous increasing ids in one ubatch."""
    lengths = {item.sequence_id: item.length for item in plan.prefill}
    lengths.update(dict.fromkeys(plan.decode, 1))
    return [running[sequence_id].chunk(lengths[sequence_id]) for sequence_id in sorted(lengths)]
