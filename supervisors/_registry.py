"""Names: a registry of unique keys, and process groups."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import attrs

from ._errors import AlreadyRegistered, NoProc, NotJoined
from ._pid import AnyPid, Pid, self_
from ._process import hold


def strict_key(key: Hashable) -> Hashable:
    """A key under which ``1``, ``1.0`` and ``True`` are three, also inside tuples and frozensets."""
    if isinstance(key, str):
        return key
    if isinstance(key, tuple):
        return (tuple, *(strict_key(part) for part in key))
    if isinstance(key, frozenset):
        return (frozenset, frozenset(strict_key(part) for part in key))
    return (type(key), key)


@attrs.frozen
class Via:
    """A name in a registry, resolved each time it is used; works wherever a pid does."""

    registry: Registry = attrs.field(eq=id, hash=False, repr=False)
    key: Hashable = attrs.field(eq=strict_key, hash=False)
    _strict: Hashable = attrs.field(init=False, eq=False, hash=True, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_strict", strict_key(self.key))

    def resolve(self) -> AnyPid | None:
        """The process registered now, or None."""
        entry = self.registry._entries.get(self._strict)
        return None if entry is None else entry[1]


class Registry:
    """Unique keys for processes. All methods are synchronous. A key is free the moment its owner has ended.

    Keys compare strictly: ``1``, ``1.0`` and ``True`` are different.
    """

    def __init__(self) -> None:
        self._entries: dict[Hashable, tuple[Hashable, AnyPid]] = {}
        self._of_pid: dict[AnyPid, dict[Hashable, None]] = {}

    def register(self, key: Hashable, pid: Pid[Any] | None = None) -> None:
        """Give ``key`` to ``pid`` (this process by default). AlreadyRegistered when taken, NoProc when dead."""
        owner = self_() if pid is None else pid
        if not owner.alive:
            raise NoProc(owner)
        strict = strict_key(key)
        entry = self._entries.get(strict)
        if entry is not None:
            raise AlreadyRegistered(entry[1])
        self._entries[strict] = (key, owner)
        self._of_pid.setdefault(owner, {})[strict] = None
        hold(owner, self)

    def unregister(self, key: Hashable) -> None:
        """Free ``key``; nothing happens when it is free."""
        strict = strict_key(key)
        entry = self._entries.pop(strict, None)
        if entry is None:
            return
        keys = self._of_pid[entry[1]]
        del keys[strict]
        if not keys:
            del self._of_pid[entry[1]]

    def whereis(self, key: Hashable) -> AnyPid | None:
        """The owner of ``key``, or None."""
        entry = self._entries.get(strict_key(key))
        return None if entry is None else entry[1]

    def keys(self, pid: Pid[Any]) -> list[Hashable]:
        """The keys of one process, in the order they were registered."""
        return [self._entries[strict][0] for strict in self._of_pid.get(pid, ())]

    def via(self, key: Hashable) -> Via:
        """The name ``key`` as something to call, cast to, monitor or stop."""
        return Via(self, key)

    @property
    def count(self) -> int:
        """How many keys are taken."""
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Registry of {len(self._entries)} keys>"

    def owner_exited(self, pid: AnyPid) -> None:
        """Free all keys of a process that has ended."""
        for strict in self._of_pid.pop(pid, ()):
            del self._entries[strict]


class ProcessGroups:
    """Named groups of processes. A process may join more than once and counts as often; dead members leave.

    All methods are synchronous. A group exists while it has members.
    """

    def __init__(self) -> None:
        self._members: dict[Hashable, list[AnyPid]] = {}
        self._names: dict[Hashable, Hashable] = {}
        self._of_pid: dict[AnyPid, dict[Hashable, None]] = {}

    def join(self, group: Hashable, pid: Pid[Any] | None = None) -> None:
        """Add ``pid`` (this process by default) once more. NoProc when it is dead."""
        member = self_() if pid is None else pid
        if not member.alive:
            raise NoProc(member)
        strict = strict_key(group)
        self._names.setdefault(strict, group)
        self._members.setdefault(strict, []).append(member)
        self._of_pid.setdefault(member, {})[strict] = None
        hold(member, self)

    def leave(self, group: Hashable, pid: Pid[Any] | None = None) -> None:
        """Take ``pid`` (this process by default) out once. NotJoined when it is not a member."""
        member = self_() if pid is None else pid
        strict = strict_key(group)
        members = self._members.get(strict, [])
        if member not in members:
            raise NotJoined(group, member)
        members.remove(member)
        if member not in members:
            groups = self._of_pid[member]
            del groups[strict]
            if not groups:
                del self._of_pid[member]
        if not members:
            del self._members[strict], self._names[strict]

    def members(self, group: Hashable) -> list[AnyPid]:
        """The members in the order they joined, each as often as it joined."""
        return list(self._members.get(strict_key(group), ()))

    def groups(self) -> list[Hashable]:
        """The groups that have members."""
        return list(self._names.values())

    def owner_exited(self, pid: AnyPid) -> None:
        """A member has ended: it leaves all its groups."""
        for strict in self._of_pid.pop(pid, ()):
            left = [member for member in self._members[strict] if member is not pid]
            if left:
                self._members[strict] = left
            else:
                del self._members[strict], self._names[strict]
