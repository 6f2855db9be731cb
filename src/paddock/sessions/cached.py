"""What the KV store may hold of a conversation: the keys of its blocks."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from paddock.engine.caching.prefix import ChainRules, chain_of
from paddock.sessions.conversation import Conversation

__all__ = ["cache_tenant", "session_blocks"]

_KEYS_AT_ONCE = 200
"""About half a millisecond of hashing."""


def cache_tenant(tenant: str) -> str:
    """Whose blocks a tenant's sessions use: those of plain requests where nothing else is asked for."""
    return "" if tenant == "default" else tenant


async def session_blocks(rules: ChainRules, conversation: Conversation) -> Sequence[bytes]:
    """The keys of the blocks that the conversation's tokens fill, the first one first. A checkpoint."""
    tenant = cache_tenant(conversation.facts.key.tenant)
    chain = chain_of(rules, list(conversation.tokens), conversation.flags, tenant=tenant)
    while chain.hash_some(_KEYS_AT_ONCE):
        await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()
    return chain.keys
