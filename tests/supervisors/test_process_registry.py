"""Names and groups: rows R01, R02, R05 and R07 of the conformance list."""

from __future__ import annotations

from typing import Any

import pytest
from actors import Echo, in_process, wait_forever

import supervisors as sup
from supervisors.testing import settle


async def test_r01_key_is_unique_and_free_the_moment_its_owner_ends(node: sup.Node) -> None:
    registry = sup.Registry()
    owner, other = node.spawn(wait_forever), node.spawn(wait_forever)
    registry.register("key", owner)
    with pytest.raises(sup.AlreadyRegistered) as taken:
        registry.register("key", other)
    assert taken.value.pid is owner
    with pytest.raises(sup.AlreadyRegistered):
        registry.register("key", owner)
    registry.register("second", owner)
    assert registry.keys(owner) == ["key", "second"]
    assert registry.count == 2
    sup.exit(owner, sup.Killed())
    await sup.wait_down(owner)
    assert registry.count == 0
    registry.register("key", other)
    assert registry.whereis("key") is other
    registry.unregister("key")
    registry.unregister("key")
    assert registry.whereis("key") is None
    assert registry.keys(other) == []
    with pytest.raises(sup.NoProc):
        registry.register("key", owner)


async def test_r01_inside_a_process_the_owner_is_that_process(node: sup.Node) -> None:
    registry = sup.Registry()

    async def body() -> None:
        registry.register("me")
        assert registry.whereis("me") is sup.self()

    await in_process(node, body)
    assert registry.count == 0


async def test_r02_via_works_wherever_a_pid_does(node: sup.Node) -> None:
    registry = sup.Registry()
    via = registry.via("echo")
    pid = await node.start(Echo, name=via)
    assert sup.whereis(via) is pid
    assert await sup.call(via, 1) == 1
    sup.cast(via, "message")
    sup.send(via, "message")
    assert isinstance(await sup.get_state(via), Echo)
    assert await sup.send_request(via, 2).wait() == 2
    with pytest.raises(sup.AlreadyStarted) as taken:
        await node.start(Echo, name=via)
    assert taken.value.pid is pid

    async def body() -> None:
        ref = sup.monitor(via)
        await sup.stop(via)
        assert await sup.receive() == sup.Down(ref, via, sup.Normal())

    await in_process(node, body)
    assert sup.whereis(via) is None
    assert await sup.wait_down(via) == sup.NoProcReason()
    supervisor = await node.start(sup.Supervisor, name=registry.via("supervisor"))
    await sup.start_child(registry.via("supervisor"), sup.child(Echo, name=via))
    first = sup.whereis(via)
    sup.cast(via, "crash")
    await settle()
    assert sup.whereis(via) is not first
    assert sup.whereis(via) is not None, "the name follows the restart"
    assert supervisor.alive


@pytest.mark.parametrize("wrap", [lambda key: key, lambda key: (key, "x"), lambda key: frozenset([key])])
async def test_r05_keys_compare_strictly(node: sup.Node, wrap: Any) -> None:
    registry = sup.Registry()
    owners = {kind: node.spawn(wait_forever) for kind in (int, float, bool)}
    for kind, owner in owners.items():
        registry.register(wrap(kind(1)), owner)
    for kind, owner in owners.items():
        assert registry.whereis(wrap(kind(1))) is owner
        assert registry.via(wrap(kind(1))).resolve() is owner
    assert len({registry.via(wrap(kind(1))) for kind in owners}) == 3
    assert registry.via("a") == registry.via("a") != sup.Registry().via("a")


async def test_r07_process_groups(node: sup.Node) -> None:
    groups = sup.ProcessGroups()
    one, two = node.spawn(wait_forever), node.spawn(wait_forever)
    groups.join("g", one)
    groups.join("g", one)
    groups.join("g", two)
    groups.join("h", two)
    assert groups.members("g") == [one, one, two]
    groups.leave("g", one)
    assert groups.members("g") == [one, two]
    groups.leave("g", one)
    with pytest.raises(sup.NotJoined):
        groups.leave("g", one)
    with pytest.raises(sup.NotJoined):
        groups.leave("unknown", one)
    groups.join("g", one)
    sup.exit(two, sup.Killed())
    await sup.wait_down(two)
    assert groups.members("g") == [one]
    assert groups.groups() == ["g"]
    sup.exit(one, sup.Killed())
    await sup.wait_down(one)
    assert groups.groups() == []
    with pytest.raises(sup.NoProc):
        groups.join("g", one)


async def test_r07_a_member_that_leaves_while_it_ends_is_no_error(node: sup.Node) -> None:
    groups = sup.ProcessGroups()

    async def member() -> None:
        groups.join("g")
        groups.join("g")
        groups.leave("g")
        groups.leave("g")

    assert await sup.wait_down(node.spawn(member)) == sup.Normal()
    assert groups.groups() == []
