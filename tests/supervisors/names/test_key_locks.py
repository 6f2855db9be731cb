"""Locks by key: row R06 of the conformance list."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from actors import Broken

import supervisors as sup
from supervisors.testing import settle


class Visits:
    """Who is inside the lock, and who has been."""

    def __init__(self, registry: sup.Registry | sup.DuplicateRegistry) -> None:
        self.registry = registry
        self.log: list[str] = []

    async def visit(self, name: str, key: Any, seconds: float = 1.0, broken: bool = False) -> None:
        async with self.registry.lock(key):
            self.log.append(f"{name} in")
            await trio.sleep(seconds)
            if broken:
                raise Broken(name)
            self.log.append(f"{name} out")

    async def ask(self, node: sup.Node, *asking: tuple[Any, ...]) -> list[sup.Pid[Any]]:
        """Start visitors, each of which asks after the one before it."""
        pids = []
        for arguments in asking:
            pids.append(node.spawn(self.visit, *arguments))
            await settle()
        return pids


@pytest.fixture
def visits() -> Visits:
    return Visits(sup.Registry())


async def test_r06_same_key_excludes_in_the_order_of_asking(node: sup.Node, visits: Visits) -> None:
    pids = await visits.ask(node, ("a", "key"), ("b", "key"), ("c", "key"))
    for pid in pids:
        await sup.wait_down(pid)
    assert visits.log == ["a in", "a out", "b in", "b out", "c in", "c out"]
    assert trio.current_time() == 3


async def test_r06_other_keys_run(node: sup.Node, visits: Visits) -> None:
    pids = [node.spawn(visits.visit, str(key), key) for key in (1, 1.0, True)]
    for pid in pids:
        await sup.wait_down(pid)
    assert trio.current_time() == 1, "all three at once"


async def test_r06_holder_that_raises_frees_it(node: sup.Node, visits: Visits) -> None:
    broken, waiter = await visits.ask(node, ("a", "key", 1.0, True), ("b", "key"))
    assert isinstance(await sup.wait_down(broken), sup.Crashed)
    assert await sup.wait_down(waiter) == sup.Normal()
    assert visits.log == ["a in", "b in", "b out"]


async def test_r06_holder_that_dies_frees_it(node: sup.Node, visits: Visits) -> None:
    holder, waiter = await visits.ask(node, ("a", "key", 1000), ("b", "key"))
    sup.exit(holder, sup.Killed())
    assert await sup.wait_down(waiter) == sup.Normal()
    assert visits.log == ["a in", "b in", "b out"]


async def test_r06_waiter_that_dies_is_harmless(node: sup.Node, visits: Visits) -> None:
    holder, dying, waiter = await visits.ask(node, ("a", "key"), ("b", "key"), ("c", "key"))
    sup.exit(dying, sup.Killed())
    for pid in (holder, dying, waiter):
        await sup.wait_down(pid)
    assert visits.log == ["a in", "a out", "c in", "c out"]


async def test_r06_waiter_that_dies_as_the_lock_is_handed_to_it_hands_it_on(node: sup.Node, visits: Visits) -> None:
    holder, dying, waiter = await visits.ask(node, ("a", "key"), ("b", "key"), ("c", "key"))

    async def strike() -> None:
        await sup.wait_down(holder)
        sup.exit(dying, sup.Killed())

    node.spawn(strike)
    assert await sup.wait_down(waiter) == sup.Normal()
    assert visits.log[-2:] == ["c in", "c out"]
    assert "b out" not in visits.log


async def test_r06_nothing_is_kept_of_a_key_that_nobody_wants(node: sup.Node) -> None:
    locks = sup.KeyLocks()
    async with locks.hold("key"):
        assert locks.count == 1
        assert repr(locks) == "<KeyLocks, 1 in use>"
        with pytest.raises(RuntimeError, match="re-acquire"):
            async with locks.hold("key"):
                raise AssertionError("never inside twice")
        assert locks.count == 1
    assert locks.count == 0
