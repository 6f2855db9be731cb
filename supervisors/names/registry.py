"""The registry: unique names for processes, each with a value; and what its two kinds share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import attrs

from supervisors.errors import AlreadyRegistered, NoProc, NotOwner
from supervisors.processes.mailbox import INFO
from supervisors.processes.pid import AnyPid, Pid, Target, current_process, self_
from supervisors.processes.process import hold

from .key_locks import KeyLocks
from .strict_key import strict_key

__all__ = ["Entry", "KeyTable", "Registered", "Registry", "Unregistered", "Via"]


@attrs.frozen(eq=False)
class Entry:
    """One line of a registry: which process has registered which key, with which value."""

    key: Hashable
    pid: AnyPid
    value: Any = None


@attrs.frozen
class Registered:
    """To listeners: ``pid`` has registered ``key``."""

    registry: KeyTable
    key: Hashable
    pid: AnyPid
    value: Any


@attrs.frozen
class Unregistered:
    """To listeners: ``key`` is no longer ``pid``'s, since it gave the key back or has ended."""

    registry: KeyTable
    key: Hashable
    pid: AnyPid


class KeyTable(ABC):
    """What `Registry` and `DuplicateRegistry` share; not meant for other subclasses."""

    def __init__(self, listeners: Iterable[Target] = ()) -> None:
        self._listeners: list[Target] = []
        self._locks = KeyLocks()
        for target in listeners:
            self.add_listener(target)

    @abstractmethod
    def lookup(self, key: Hashable) -> Sequence[Entry]:
        """The entries of ``key``, oldest first; none when it is free."""

    def dispatch(self, key: Hashable, callback: Callable[[Sequence[Entry]], object]) -> None:
        """Call ``callback`` once with all entries of ``key``; not at all when there are none. What it raises is raised.

        The entries are a copy: the callback may register and unregister.
        """
        entries = self.lookup(key)
        if entries:
            callback(entries)

    def match(self, key: Hashable, predicate: Callable[[Any], bool]) -> Sequence[Entry]:
        """The entries of ``key`` whose value satisfies ``predicate``."""
        return [entry for entry in self.lookup(key) if predicate(entry.value)]

    def lock(self, key: Hashable) -> AbstractAsyncContextManager[None]:
        """``async with registry.lock(key):`` lets one task at a time into the block, for each key by itself.

        The key needs not be registered. See `KeyLocks.hold`.
        """
        return self._locks.hold(key)

    # -- listeners

    def add_listener(self, target: Target) -> None:
        """Send `Registered` and `Unregistered` to a process, pid or name, from now on. A dead one gets nothing."""
        self._listeners.append(target)
        if isinstance(target, Pid) and target.alive:
            hold(target, self)

    def remove_listener(self, target: Target) -> None:
        """Undo `add_listener` once; nothing happens when it does not listen."""
        if target in self._listeners:
            self._listeners.remove(target)

    def _tell(self, event: Registered | Unregistered) -> None:
        for target in tuple(self._listeners):
            pid = target.resolve()
            if pid is not None:
                # like a Down: the bound of the listener's mailbox must not hit the one who registers
                pid.mailbox.put((INFO, event, None))

    # -- owners

    def owner_exited(self, pid: AnyPid) -> None:
        """Free all keys of a process that has ended; it listens no more."""
        self._listeners = [target for target in self._listeners if target is not pid]
        self._drop(pid)

    @abstractmethod
    def _drop(self, pid: AnyPid) -> None:
        """Take all entries of a process away."""


def new_owner(pid: AnyPid | None) -> AnyPid:
    """Who is to own a key: ``pid``, or this process. NoProc when it is dead."""
    owner = self_() if pid is None else pid
    if not owner.alive:
        raise NoProc(owner)
    return owner


def acting_owner(key: Hashable, pid: AnyPid | None) -> AnyPid:
    """Whose key is to be given back: this process's, or, from a task outside any process, that of ``pid``."""
    me = current_process()
    if pid is None:
        return self_()
    if me is not None and me is not pid:
        raise NotOwner(key)
    return pid


@attrs.frozen
class Via:
    """A name in a registry, resolved each time it is used; works wherever a pid does."""

    registry: Registry = attrs.field(eq=id, hash=False, repr=False)
    key: Hashable = attrs.field(eq=strict_key, hash=False)
    _strict: Hashable = attrs.field(init=False, eq=False, hash=True, repr=False)

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.registry, Registry):
            raise TypeError(f"{self.registry!r} gives no names: a key of it may have many owners")
        object.__setattr__(self, "_strict", strict_key(self.key))

    def resolve(self) -> AnyPid | None:
        """The process registered now, or None."""
        entry = self.registry._entries.get(self._strict)
        return None if entry is None else entry.pid


class Registry(KeyTable):
    """Unique keys for processes, each with a value. All methods but the lock are synchronous.

    A key is free the moment its owner has ended. Keys compare strictly: ``1``, ``1.0`` and ``True`` are different.
    """

    def __init__(self, listeners: Iterable[Target] = ()) -> None:
        self._entries: dict[Hashable, Entry] = {}
        self._of_pid: dict[AnyPid, dict[Hashable, None]] = {}
        super().__init__(listeners)

    def register(self, key: Hashable, pid: Pid[Any] | None = None, *, value: Any = None) -> None:
        """Give ``key`` to ``pid`` (this process by default). AlreadyRegistered when taken, NoProc when dead."""
        owner = new_owner(pid)
        strict = strict_key(key)
        entry = self._entries.get(strict)
        if entry is not None:
            raise AlreadyRegistered(entry.pid)
        self._entries[strict] = Entry(key, owner, value)
        self._of_pid.setdefault(owner, {})[strict] = None
        hold(owner, self)
        if self._listeners:
            self._tell(Registered(self, key, owner, value))

    def unregister(self, key: Hashable, pid: Pid[Any] | None = None) -> None:
        """Give back ``key`` of this process; nothing happens when it is free or another's.

        A task outside any process says whose key it means: ``pid``. NotOwner when a process names another one.
        """
        owner = acting_owner(key, pid)
        strict = strict_key(key)
        entry = self._entries.get(strict)
        if entry is None or entry.pid is not owner:
            return
        del self._entries[strict]
        keys = self._of_pid[owner]
        del keys[strict]
        if not keys:
            del self._of_pid[owner]
        if self._listeners:
            self._tell(Unregistered(self, entry.key, owner))

    def update_value(self, key: Hashable, callback: Callable[[Any], Any]) -> Any:
        """Put ``callback(value)`` in the place of the value of this process's key, and return it.

        NotOwner when the key is another's, NoProc when it is free; what the callback raises changes nothing.
        """
        strict = strict_key(key)
        entry = self._entries.get(strict)
        if entry is None:
            raise NoProc(self.via(key))
        if entry.pid is not current_process():
            raise NotOwner(key)
        new = attrs.evolve(entry, value=callback(entry.value))
        if self._entries.get(strict) is not entry:
            raise NoProc(self.via(key))
        self._entries[strict] = new
        return new.value

    def whereis(self, key: Hashable) -> AnyPid | None:
        """The owner of ``key``, or None."""
        entry = self._entries.get(strict_key(key))
        return None if entry is None else entry.pid

    def value(self, key: Hashable) -> Any:
        """The value of ``key``. NoProc when it is free."""
        entry = self._entries.get(strict_key(key))
        if entry is None:
            raise NoProc(self.via(key))
        return entry.value

    def lookup(self, key: Hashable) -> Sequence[Entry]:
        """The entry of ``key``, in a list; an empty list when the key is free."""
        entry = self._entries.get(strict_key(key))
        return [] if entry is None else [entry]

    def keys(self, pid: Pid[Any]) -> list[Hashable]:
        """The keys of one process, in the order they were registered."""
        return [self._entries[strict].key for strict in self._of_pid.get(pid, ())]

    def via(self, key: Hashable) -> Via:
        """The name ``key`` as something to call, cast to, monitor or stop."""
        return Via(self, key)

    @property
    def count(self) -> int:
        """How many keys are taken."""
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Registry of {len(self._entries)} keys>"

    def _drop(self, pid: AnyPid) -> None:
        entries = [self._entries.pop(strict) for strict in self._of_pid.pop(pid, ())]
        if self._listeners:
            for entry in entries:
                self._tell(Unregistered(self, entry.key, pid))
