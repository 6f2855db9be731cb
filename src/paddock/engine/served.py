"""A loaded model as the parent process knows it: sizes, vocabulary, facts. No llama.cpp in here."""

from __future__ import annotations

import attrs
import numpy as np

from paddock.engine.batching.recipes import FAST, Recipe
from paddock.engine.caching.messages import ServedCache
from paddock.engine.worker.protocol import Loaded
from paddock.errors import ContextOverflow, InvalidParameter
from paddock.models.facts import ModelFacts
from paddock.native.exactness.certificate import Certificate
from paddock.text.pieces import PieceTable

__all__ = ["ServedModel", "admitted_max_tokens", "served_model", "shortest_possible"]

_BYTE_PRESERVING = frozenset({"llama", "gpt2"})
"""Tokenizers that keep every byte of the text, so that a long text cannot become few tokens."""


@attrs.frozen(eq=False, kw_only=True)
class ServedModel:
    """What requests need to know of the model that serves them; one value per worker start."""

    name: str
    facts: ModelFacts
    recipe: Recipe
    """Named "unproven" where its certificate does not hold."""
    certificate: Certificate | None
    """None where the fastest settings were asked for."""
    table: PieceTable
    n_vocab: int
    n_ctx: int
    """Tokens per sequence."""
    n_batch: int
    special: dict[str, int]
    longest_piece: int
    """Bytes of the longest token."""
    cache: ServedCache | None = None
    """The model's place in the KV store; None where there is none."""


def served_model(name: str, facts: ModelFacts, recipe: Recipe, loaded: Loaded, n_ctx: int) -> ServedModel:
    """Puts together what the header says, what was asked for and what the worker reported.

    ``n_ctx`` is the bound that was asked for; the worker's cells are more where llama.cpp rounds them up.
    """
    offsets = np.frombuffer(loaded.offsets, dtype="<u4")
    return ServedModel(
        name=name,
        facts=facts,
        recipe=_as_proven(recipe, loaded.certificate),
        certificate=loaded.certificate,
        table=PieceTable(
            data=loaded.pieces,
            offsets=offsets.tolist(),
            control=frozenset(loaded.control),
            eog=frozenset(loaded.eog),
            add_space_prefix=loaded.add_space_prefix,
            clean_spaces=loaded.clean_spaces,
        ),
        n_vocab=loaded.n_vocab,
        n_ctx=min(n_ctx, loaded.n_ctx),
        n_batch=loaded.n_batch,
        special=dict(loaded.special),
        longest_piece=max(1, int(np.diff(offsets).max(initial=1))),
    )


def _as_proven(recipe: Recipe, certificate: Certificate | None) -> Recipe:
    """The name of a recipe is a claim: it is kept where a certificate holds, or where nothing is claimed."""
    if recipe.name == FAST.name or (certificate is not None and certificate.holds):
        return recipe
    return attrs.evolve(recipe, name="unproven")


def shortest_possible(served: ServedModel, text: bytes) -> int:
    """A lower bound of the tokens of ``text``, without tokenizing it: no token is longer than the longest piece.

    0 for tokenizers that may drop or merge bytes.
    """
    if served.facts.tokenizer_model not in _BYTE_PRESERVING:
        return 0
    return -(-len(text) // served.longest_piece)


def admitted_max_tokens(served: ServedModel, prompt_tokens: int, max_tokens: int | None, min_tokens: int = 0) -> int:
    """How many tokens may be generated; the worst case is reserved, so a running stream never meets a full cache.

    Raises ContextOverflow when prompt and ``max_tokens`` (at least one) exceed the context of one sequence, and
    InvalidParameter for an empty prompt, and for ``min_tokens`` that the rest of the context has no room for.
    """
    if prompt_tokens == 0:
        raise InvalidParameter("prompt", "", "it must give at least one token")
    if prompt_tokens + (max_tokens or 1) > served.n_ctx:
        raise ContextOverflow(prompt_tokens, max_tokens, served.n_ctx)
    if min_tokens > served.n_ctx - prompt_tokens:
        room = f"at most {served.n_ctx - prompt_tokens} after a prompt of {prompt_tokens} tokens"
        raise InvalidParameter("min_tokens", min_tokens, f"{room} in n_ctx={served.n_ctx}")
    return max_tokens if max_tokens is not None else served.n_ctx - prompt_tokens
