"""What the KV store may hold of a conversation: the keys of its blocks."""

from __future__ import annotations

from paddock.engine.caching.prefix import ChainRules, chain_of
from paddock.sessions.conversation import Conversation

__all__ = ["cache_tenant", "session_blocks"]


def cache_tenant(tenant: str) -> str:
    """Whose blocks a tenant's sessions use: those of plain requests where nothing else is asked for."""
    return "" if tenant == "default" else tenant


def session_blocks(rules: ChainRules, conversation: Conversation) -> tuple[bytes, ...]:
    """The keys of all blocks that were filled by the conversation's turns, those at the beginning first.

    Also of what a later turn dropped, but not of what was rewound. To be called in a thread: long conversations take
    many milliseconds.
    """
    tenant = cache_tenant(conversation.facts.key.tenant)
    keys: dict[bytes, None] = {}
    for state in conversation.states():
        keys.update(dict.fromkeys(chain_of(rules, list(state.tokens), state.flags, tenant=tenant).keys))
    return tuple(keys)
