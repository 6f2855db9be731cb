"""From a request's tokens to the keys of their blocks."""

from __future__ import annotations

import attrs

from paddock.cache.keys import Chain, root_key

__all__ = ["ChainRules", "chain_of"]


@attrs.frozen
class ChainRules:
    """How the sequences of one served model are cut into blocks and named. See :class:`paddock.cache.keys.Chain`."""

    identity: bytes = attrs.field(repr=False)
    """The digest of what decides the bits beside the tokens."""
    block_tokens: int
    minimum_chunk: int
    by_tokens_alone: bool

    def root(self, tenant: str) -> bytes:
        """The parent of a tenant's first blocks: tenants share none, as what is cached can be told by the time."""
        return root_key(self.identity, tenant)


def chain_of(
    rules: ChainRules,
    prompt: list[int],
    generated: bytes | None = None,
    reply: list[int] | None = None,
    tenant: str = "",
) -> Chain:
    """The chain of a prompt and of the reply so far; its keys are not hashed yet.

    ``generated``: one byte for each prompt token, 1 for those generated in an earlier turn; None: none of them.
    """
    chain = Chain(
        rules.root(tenant),
        rules.block_tokens,
        minimum_chunk=rules.minimum_chunk,
        by_tokens_alone=rules.by_tokens_alone,
    )
    flags = generated if generated is not None and not rules.by_tokens_alone else b""
    position = 0
    while position < len(prompt):
        was_generated = flags[position : position + 1] == b"\1"
        stop = flags.find(b"\0" if was_generated else b"\1", position)
        stop = stop if stop >= 0 else len(prompt)
        (chain.append_generated if was_generated else chain.append_prompt)(prompt[position:stop])
        position = stop
    chain.seal()
    chain.append_generated(reply or [])
    return chain
