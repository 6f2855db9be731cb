"""What a request gives back: deltas while it runs, one completion at its end."""

from __future__ import annotations

import attrs

from paddock.text.stream import TokenLogprob

__all__ = ["Completion", "Delta", "TokenLogprob", "Usage"]


@attrs.frozen
class Delta:
    """A piece of a running reply. ``text`` is whole characters; ``token_ids`` are the tokens that completed it.

    ``logprobs`` runs parallel to ``token_ids``, or is None when log-probabilities were not asked for.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None


@attrs.frozen
class Usage:
    """Token counts: the prompt's, how many of those were restored from the cache instead of computed, the reply's.

    Two usages are equal whatever came from the cache: that depends on what ran before, and changes no byte of a reply.
    """

    prompt_tokens: int
    cached_tokens: int = attrs.field(eq=False)
    completion_tokens: int


@attrs.frozen(kw_only=True)
class Completion:
    """A finished reply.

    ``token_ids`` are all generated tokens, also those whose text a stop string cut away and the end-of-text token;
    ``text`` is what was streamed. ``finish_reason`` is ``"stop"`` (end-of-text token, stop string or stop token) or
    ``"length"`` (``max_tokens`` or the end of the context). ``exactness`` names the schedule it was computed under, see
    ``Model.exactness``.
    """

    model: str
    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    stop: str | int | None
    """The stop string or stop token id that ended it; None for the end-of-text token and for ``"length"``."""
    seed: int
    usage: Usage
    exactness: str
    logprobs: tuple[TokenLogprob, ...] | None = None
    recoveries: int = attrs.field(default=0, eq=False)
    """How often the worker died under it, and it went on where it was. Two completions are equal whatever it is."""
