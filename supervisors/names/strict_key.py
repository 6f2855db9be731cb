"""Keys that differ by type: ``1``, ``1.0`` and ``True`` are three names, where a bare dict knows one."""

from __future__ import annotations

from collections.abc import Hashable


def strict_key(key: Hashable) -> Hashable:
    """What stands for ``key`` in a dict: equal only for keys of the same type, also inside tuples and frozensets.

    Raises TypeError for a key that is not hashable.

    Keys of other classes are compared by their own ``==`` among keys of their class.
    """
    kind = type(key)
    if kind is str:
        return key
    if isinstance(key, tuple):
        return (kind, *(strict_key(part) for part in key))
    if isinstance(key, frozenset):
        return (kind, frozenset(strict_key(part) for part in key))
    hash(key)
    return (kind, key)
