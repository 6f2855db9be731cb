"""Registries and groups against plain models, through random joins, leaves and deaths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import pytest
from actors import wait_forever
from hypothesis import given, settings
from hypothesis import strategies as st

import supervisors as sup
from supervisors.testing import run_in_virtual_time

PROCESSES = 3
Step: TypeAlias = tuple[Literal["add", "remove", "die"], int, Any]

keys = st.sampled_from(["a", 1, 1.0, True, (1, "x"), (True, "x")])
steps = st.lists(st.tuples(st.sampled_from(["add", "remove", "die"]), st.integers(0, PROCESSES - 1), keys), max_size=40)


def typed(key: Any) -> Any:
    """A key that a plain dict tells apart."""
    return (tuple, *map(typed, key)) if isinstance(key, tuple) else (type(key), key)


def play(todo: list[Step], step: Callable[[Literal["add", "remove", "die"], sup.Pid[Any], Any], None]) -> None:
    """Carry out the steps with processes of a node; ``step`` sees each after it has happened to the process."""

    async def main() -> None:
        async with sup.open_node() as node:
            pids = [node.spawn(wait_forever, label=str(n)) for n in range(PROCESSES)]
            for what, who, key in todo:
                if what == "die":
                    sup.exit(pids[who], sup.Killed())
                    await sup.wait_down(pids[who])
                if what == "die" or pids[who].alive:
                    step(what, pids[who], key)

    run_in_virtual_time(main)


@settings(deadline=None, max_examples=60)
@given(steps)
def test_a_registry_knows_who_has_which_key(todo: list[Step]) -> None:
    registry = sup.Registry()
    owners: dict[Any, tuple[Any, sup.Pid[Any]]] = {}

    def step(what: str, pid: sup.Pid[Any], key: Any) -> None:
        owner = owners.get(typed(key))
        if what == "add" and owner is None:
            registry.register(key, pid)
            owners[typed(key)] = (key, pid)
        elif what == "add":
            with pytest.raises(sup.AlreadyRegistered) as taken:
                registry.register(key, pid)
            assert owner is not None
            assert taken.value.pid is owner[1]
        elif what == "remove":
            registry.unregister(key, pid)
            if owner is not None and owner[1] is pid:
                del owners[typed(key)]
        else:
            for name in [name for name, (_, has) in owners.items() if has is pid]:
                del owners[name]
        assert registry.count == len(owners)
        assert all(registry.whereis(name) is has for name, has in owners.values())
        assert [typed(name) for name in registry.keys(pid)] == [name for name, (_, has) in owners.items() if has is pid]

    play(todo, step)


@settings(deadline=None, max_examples=60)
@given(steps)
def test_a_duplicate_registry_knows_all_entries_in_their_order(todo: list[Step]) -> None:
    registry = sup.DuplicateRegistry()
    entries: list[tuple[Any, sup.Pid[Any], int]] = []
    numbers = iter(range(1000))

    def step(what: str, pid: sup.Pid[Any], key: Any) -> None:
        if what == "add":
            number = next(numbers)
            registry.register(key, pid, value=number)
            entries.append((typed(key), pid, number))
        elif what == "remove":
            registry.unregister(key, pid)
            entries[:] = [entry for entry in entries if entry[:2] != (typed(key), pid)]
        else:
            entries[:] = [entry for entry in entries if entry[1] is not pid]
        assert registry.count == len(entries)
        assert [(entry.pid, entry.value) for entry in registry.lookup(key)] == [
            (has, number) for name, has, number in entries if name == typed(key)
        ]
        assert [typed(name) for name in registry.keys(pid)] == [name for name, has, _ in entries if has is pid]

    play(todo, step)


@settings(deadline=None, max_examples=60)
@given(steps)
def test_groups_count_how_often_each_has_joined(todo: list[Step]) -> None:
    groups = sup.ProcessGroups()
    joined: Counter[tuple[Any, sup.Pid[Any]]] = Counter()

    def step(what: str, pid: sup.Pid[Any], key: Any) -> None:
        member = (typed(key), pid)
        if what == "add":
            groups.join(key, pid)
            joined[member] += 1
        elif what == "remove" and joined[member]:
            groups.leave(key, pid)
            joined[member] -= 1
        elif what == "remove":
            with pytest.raises(sup.NotJoined):
                groups.leave(key, pid)
        else:
            for other in [other for other in joined if other[1] is pid]:
                del joined[other]
        here = Counter({other[1]: times for other, times in joined.items() if other[0] == typed(key) and times})
        assert Counter(groups.members(key)) == here
        assert {typed(name) for name in groups.groups()} == {other[0] for other, times in joined.items() if times}

    play(todo, step)
