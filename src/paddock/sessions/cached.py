"""What the KV store holds of conversations: the keys of their blocks, and what becomes of those."""

from __future__ import annotations

import attrs
import trio

from paddock.cache.client import KvStore
from paddock.engine.caching.messages import ServedCache
from paddock.engine.caching.prefix import ChainRules, chain_of
from paddock.errors import CacheError
from paddock.sessions.conversation import Conversation

__all__ = ["CachedSessions", "cache_tenant", "session_blocks"]


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


@attrs.frozen
class CachedSessions:
    """The store as the sessions of one model use it. Nothing here fails: what is lost is computed again."""

    store: KvStore
    cache: ServedCache

    async def put_to_sleep(self, conversation: Conversation) -> None:
        """Has a conversation's blocks written to disk, and their memory freed. A checkpoint."""
        handle, rules = self.cache.handle, self.cache.rules
        try:
            await self.store.flush(handle)
            self.store.leave_ram(handle, await trio.to_thread.run_sync(session_blocks, rules, conversation))
        except CacheError:
            pass

    async def forget(self, conversation: Conversation) -> None:
        """Has a conversation's blocks dropped, in RAM and on disk. A checkpoint."""
        try:
            await self.store.forget(await trio.to_thread.run_sync(session_blocks, self.cache.rules, conversation))
        except CacheError:
            pass
