"""Locks by key: one holder for each key, other keys do not wait."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

import attrs
import trio

from .strict_key import strict_key


@attrs.define(eq=False)
class _KeyLock:
    lock: trio.Lock = attrs.field(factory=trio.Lock)
    users: int = 0
    """Holder and waiters; without any, the lock is forgotten."""


class KeyLocks:
    """Any number of locks, each made when its key is first asked for and forgotten when nobody wants it.

    Keys compare strictly, as in a `Registry`.
    """

    def __init__(self) -> None:
        self._locks: dict[Hashable, _KeyLock] = {}

    @asynccontextmanager
    async def hold(self, key: Hashable) -> AsyncIterator[None]:
        """``async with locks.hold(key):`` waits until nobody else holds ``key``, first come, first served.

        Entering is a checkpoint. The lock is free again when the block is left, in whichever way: an exception, a
        cancellation and a kill free it too. Cancelling the wait leaves no trace. RuntimeError when this task holds
        the key already: it would wait for itself.
        """
        strict = strict_key(key)
        entry = self._locks.setdefault(strict, _KeyLock())
        entry.users += 1
        try:
            async with entry.lock:
                yield
        finally:
            entry.users -= 1
            if not entry.users:
                del self._locks[strict]

    @property
    def count(self) -> int:
        """How many keys are held or waited for."""
        return len(self._locks)

    def __repr__(self) -> str:
        return f"<KeyLocks, {len(self._locks)} in use>"
