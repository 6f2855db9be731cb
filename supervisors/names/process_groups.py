"""Named groups of processes, as Erlang's ``pg`` has them on one node."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import attrs

from supervisors.errors import NoProc, NotJoined
from supervisors.processes.pid import AnyPid, Pid, self_
from supervisors.processes.process import hold

from .strict_key import strict_key


@attrs.define(eq=False)
class _Group:
    name: Hashable
    members: dict[AnyPid, int] = attrs.field(factory=dict)
    """How often each has joined, in the order they joined first."""


class ProcessGroups:
    """Named groups of processes. A process may join more than once and counts as often; dead members leave.

    All methods are synchronous. A group exists while it has members. Names compare strictly, as in a `Registry`.
    """

    def __init__(self) -> None:
        self._groups: dict[Hashable, _Group] = {}
        self._of_pid: dict[AnyPid, dict[Hashable, None]] = {}

    def join(self, group: Hashable, pid: Pid[Any] | None = None) -> None:
        """Add ``pid`` (this process by default) once more. NoProc when it is dead."""
        member = self_() if pid is None else pid
        if not member.alive:
            raise NoProc(member)
        strict = strict_key(group)
        found = self._groups.get(strict)
        if found is None:
            found = self._groups[strict] = _Group(group)
        found.members[member] = found.members.get(member, 0) + 1
        self._of_pid.setdefault(member, {})[strict] = None
        hold(member, self)

    def leave(self, group: Hashable, pid: Pid[Any] | None = None) -> None:
        """Take ``pid`` (this process by default) out once. NotJoined when it is not a member."""
        member = self_() if pid is None else pid
        strict = strict_key(group)
        found = self._groups.get(strict)
        if found is None or member not in found.members:
            raise NotJoined(group, member)
        if found.members[member] > 1:
            found.members[member] -= 1
            return
        self._take_out(strict, member)
        groups = self._of_pid[member]
        del groups[strict]
        if not groups:
            del self._of_pid[member]

    def members(self, group: Hashable) -> list[AnyPid]:
        """The members in the order they joined first, each as often as it joined."""
        found = self._groups.get(strict_key(group))
        return [] if found is None else [pid for pid, times in found.members.items() for _ in range(times)]

    def groups(self) -> list[Hashable]:
        """The groups that have members."""
        return [group.name for group in self._groups.values()]

    def __repr__(self) -> str:
        return f"<ProcessGroups: {len(self._groups)} groups>"

    def owner_exited(self, pid: AnyPid) -> None:
        """A member has ended: it leaves all its groups."""
        for strict in self._of_pid.pop(pid, ()):
            self._take_out(strict, pid)

    def _take_out(self, strict: Hashable, pid: AnyPid) -> None:
        members = self._groups[strict].members
        del members[pid]
        if not members:
            del self._groups[strict]
