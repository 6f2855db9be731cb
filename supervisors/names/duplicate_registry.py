"""The registry in which a key may have many owners: to send one message to all who are interested."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from supervisors.processes.pid import AnyPid, Pid, Target
from supervisors.processes.process import hold

from .registry import Entry, KeyTable, Registered, Unregistered, acting_owner, new_owner
from .strict_key import strict_key


class DuplicateRegistry(KeyTable):
    """Keys that many processes may register, and one process more than once, each time with a value.

    All methods but the lock are synchronous. An entry is gone the moment its process has ended. A key is no name:
    there is no ``via`` and no ``whereis``, use `dispatch`.
    """

    def __init__(self, listeners: Iterable[Target] = ()) -> None:
        self._entries: dict[Hashable, dict[int, Entry]] = {}
        self._of_pid: dict[AnyPid, dict[int, Hashable]] = {}
        self._numbers = 0
        self._count = 0
        super().__init__(listeners)

    def register(self, key: Hashable, pid: Pid[Any] | None = None, *, value: Any = None) -> None:
        """Add an entry of ``pid`` (this process by default) under ``key``. NoProc when it is dead."""
        owner = new_owner(pid)
        strict = strict_key(key)
        self._numbers += 1
        self._count += 1
        self._entries.setdefault(strict, {})[self._numbers] = Entry(key, owner, value)
        self._of_pid.setdefault(owner, {})[self._numbers] = strict
        hold(owner, self)
        if self._listeners:
            self._tell(Registered(self, key, owner, value))

    def unregister(self, key: Hashable, pid: Pid[Any] | None = None) -> None:
        """Take all entries of this process under ``key`` away; those of others stay.

        A task outside any process says whose entries it means: ``pid``. NotOwner when a process names another one.
        """
        owner = acting_owner(key, pid)
        strict = strict_key(key)
        mine = self._of_pid.get(owner, {})
        removed = [self._take_out(number, strict) for number, at in list(mine.items()) if at == strict]
        for entry in removed:
            self._tell(Unregistered(self, entry.key, owner))

    def lookup(self, key: Hashable) -> Sequence[Entry]:
        """The entries of ``key``, oldest first; none when it is free."""
        return list(self._entries.get(strict_key(key), {}).values())

    def keys(self, pid: Pid[Any]) -> list[Hashable]:
        """The keys of one process in the order they were registered, each as often as it was."""
        return [self._entries[strict][number].key for number, strict in self._of_pid.get(pid, {}).items()]

    @property
    def count(self) -> int:
        """How many entries there are."""
        return self._count

    def __repr__(self) -> str:
        return f"<DuplicateRegistry of {self._count} entries>"

    def _take_out(self, number: int, strict: Hashable) -> Entry:
        entries = self._entries[strict]
        entry = entries.pop(number)
        if not entries:
            del self._entries[strict]
        mine = self._of_pid[entry.pid]
        del mine[number]
        if not mine:
            del self._of_pid[entry.pid]
        self._count -= 1
        return entry

    def _drop(self, pid: AnyPid) -> None:
        removed = [self._take_out(number, strict) for number, strict in list(self._of_pid.get(pid, {}).items())]
        for entry in removed:
            self._tell(Unregistered(self, entry.key, pid))
