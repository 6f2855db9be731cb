"""Names with one owner, and with many: rows R01 to R05 of the conformance list."""

from __future__ import annotations

import enum
from typing import Any

import pytest
from actors import Echo, in_process, wait_forever

import supervisors as sup
from supervisors.testing import settle


async def killed(pid: sup.Pid[Any]) -> None:
    sup.exit(pid, sup.Killed())
    await sup.wait_down(pid)


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
    await killed(owner)
    assert registry.count == 0
    registry.register("key", other)
    assert registry.whereis("key") is other
    assert repr(registry) == "<Registry of 1 keys>"
    with pytest.raises(sup.NoProc):
        registry.register("other", owner)


async def test_r01_a_crash_frees_the_key_before_anybody_hears_of_it(node: sup.Node) -> None:
    registry = sup.Registry()
    pid = await node.start(Echo, name=registry.via("echo"))

    async def take_over() -> None:
        with pytest.raises(sup.ServerExited):
            await sup.call(registry.via("echo"), "crash")
        registry.register("echo")
        assert registry.whereis("echo") is sup.self()

    await in_process(node, take_over)
    assert not pid.alive


async def test_r01_inside_a_process_the_owner_is_that_process(node: sup.Node) -> None:
    registry = sup.Registry()

    async def body() -> None:
        registry.register("me")
        assert registry.whereis("me") is sup.self()

    await in_process(node, body)
    assert registry.count == 0
    with pytest.raises(LookupError):
        registry.register("nobody")


async def test_r02_via_works_wherever_a_pid_does(node: sup.Node) -> None:
    registry = sup.Registry()
    via = registry.via("echo")
    pid = await node.start(Echo, name=via)
    assert sup.whereis(via) is pid
    assert await sup.call(via, 1) == 1
    sup.cast(via, "message")
    sup.send(via, "message")
    assert await sup.send_request(via, 2).wait() == 2

    async def body() -> None:
        ref = sup.monitor(via)
        await sup.stop(via)
        assert await sup.receive() == sup.Down(ref, via, sup.Normal())

    await in_process(node, body)
    assert sup.whereis(via) is None
    assert await sup.wait_down(via) == sup.NoProcReason()
    with pytest.raises(sup.NoProc):
        await sup.call(via, 1)
    sup.cast(via, "to nobody")


async def test_r02_via_works_for_system_messages(node: sup.Node) -> None:
    registry = sup.Registry()
    via = registry.via("echo")
    await node.start(Echo, name=via)
    assert isinstance(await sup.get_state(via), Echo)
    await sup.suspend(via)
    assert (await sup.get_status(via))["suspended"]
    await sup.replace_state(via, lambda old: old)
    await sup.resume(via)
    assert await sup.call(via, 3) == 3


async def test_r02_start_under_a_taken_key_is_refused(node: sup.Node) -> None:
    registry = sup.Registry()
    via = registry.via("echo")
    pid = await node.start(Echo, name=via)
    with pytest.raises(sup.AlreadyStarted) as taken:
        await node.start(Echo, name=via)
    assert taken.value.pid is pid
    with pytest.raises(sup.AlreadyStarted):
        node.spawn(wait_forever, name=via)
    assert sup.whereis(via) is pid


async def test_r02_name_follows_the_restart(node: sup.Node) -> None:
    registry = sup.Registry()
    via = registry.via("echo")
    supervisor = await node.start(sup.Supervisor, name=registry.via("supervisor"))
    await sup.start_child(registry.via("supervisor"), sup.child(Echo, name=via))
    first = sup.whereis(via)
    sup.cast(via, "crash")
    await settle()
    assert sup.whereis(via) not in (None, first)
    assert supervisor.alive


async def test_r03_many_per_key_and_one_dispatch_with_all_entries(node: sup.Node) -> None:
    registry = sup.DuplicateRegistry()
    one, two = node.spawn(wait_forever), node.spawn(wait_forever)
    registry.register("key", one, value=1)
    registry.register("key", two, value=2)
    registry.register("key", one, value=3)
    registry.register("other", two)
    assert registry.count == 4
    assert registry.keys(one) == ["key", "key"]
    assert registry.keys(two) == ["key", "other"]
    seen: list[list[tuple[Any, Any]]] = []

    def callback(entries: Any) -> None:
        seen.append([(entry.pid, entry.value) for entry in entries])

    registry.dispatch("key", callback)
    assert seen == [[(one, 1), (two, 2), (one, 3)]]
    registry.dispatch("free", callback)
    assert len(seen) == 1, "not called for a key without entries"
    await killed(one)
    registry.dispatch("key", callback)
    assert seen[1:] == [[(two, 2)]]
    assert registry.lookup("free") == []
    assert repr(registry) == "<DuplicateRegistry of 2 entries>"
    await killed(two)
    assert (registry.count, registry.keys(two), registry.lookup("key")) == (0, [], [])
    with pytest.raises(sup.NoProc):
        registry.register("key", two)


async def test_r03_dispatch_raises_what_its_callback_raises(node: sup.Node) -> None:
    registry = sup.DuplicateRegistry()
    registry.register("key", node.spawn(wait_forever))
    with pytest.raises(ZeroDivisionError):
        registry.dispatch("key", lambda entries: 1 // 0)
    assert registry.count == 1


async def test_r03_dispatch_reaches_the_owner_of_a_unique_key_as_well(node: sup.Node) -> None:
    registry = sup.Registry()
    pid = node.spawn(wait_forever)
    registry.register("key", pid)
    seen: list[Any] = []
    registry.dispatch("key", lambda entries: seen.extend(entry.pid for entry in entries))
    registry.dispatch("free", lambda entries: seen.append("free"))
    assert seen == [pid]


async def test_r03_a_key_with_many_owners_is_no_name(node: sup.Node) -> None:
    registry = sup.DuplicateRegistry()
    assert not hasattr(registry, "via")
    with pytest.raises(TypeError, match="many owners"):
        sup.Via(registry, "key")  # type: ignore[arg-type]


async def test_r04_value_of_an_entry_is_updated_by_its_owner_only(node: sup.Node) -> None:
    registry = sup.Registry()
    other = node.spawn(wait_forever)
    registry.register("theirs", other, value=1)

    async def body() -> None:
        registry.register("mine", value=1)
        assert registry.update_value("mine", lambda value: value + 1) == 2
        assert registry.value("mine") == 2
        with pytest.raises(ZeroDivisionError):
            registry.update_value("mine", lambda value: 1 // 0)
        assert [(entry.key, entry.pid, entry.value) for entry in registry.lookup("mine")] == [("mine", sup.self(), 2)]
        with pytest.raises(sup.NotOwner):
            registry.update_value("theirs", lambda value: 7)
        with pytest.raises(sup.NoProc):
            registry.update_value("free", lambda value: 7)
        with pytest.raises(sup.NoProc):
            registry.update_value("mine", lambda value: registry.unregister("mine"))

    await in_process(node, body)
    with pytest.raises(sup.NotOwner):
        registry.update_value("theirs", lambda value: 7)
    assert registry.value("theirs") == 1
    assert registry.lookup("free") == []
    with pytest.raises(sup.NoProc):
        registry.value("free")


@pytest.mark.parametrize("kind", [sup.Registry, sup.DuplicateRegistry])
async def test_r04_unregister_takes_ones_own_only(
    node: sup.Node, kind: type[sup.Registry] | type[sup.DuplicateRegistry]
) -> None:
    registry = kind()
    other = node.spawn(wait_forever)
    registry.register("theirs", other)

    async def body() -> None:
        registry.register("mine")
        registry.register("also mine")
        registry.unregister("mine")
        assert registry.keys(sup.self()) == ["also mine"]
        registry.unregister("mine")
        registry.unregister("theirs")
        assert registry.keys(other) == ["theirs"]
        with pytest.raises(sup.NotOwner):
            registry.unregister("theirs", other)
        registry.unregister("also mine", sup.self())
        assert registry.keys(sup.self()) == []

    await in_process(node, body)
    with pytest.raises(LookupError):
        registry.unregister("theirs")
    registry.unregister("theirs", other)
    assert registry.count == 0


async def test_r04_unregister_takes_all_ones_entries_of_the_key(node: sup.Node) -> None:
    registry = sup.DuplicateRegistry()
    one, two = node.spawn(wait_forever), node.spawn(wait_forever)
    for pid in (one, two, one):
        registry.register("key", pid)
    registry.register("other", one)
    registry.unregister("key", one)
    assert [entry.pid for entry in registry.lookup("key")] == [two]
    assert registry.keys(one) == ["other"]


@pytest.mark.parametrize("kind", [sup.Registry, sup.DuplicateRegistry])
async def test_r04_match_finds_entries_by_their_value(
    node: sup.Node, kind: type[sup.Registry] | type[sup.DuplicateRegistry]
) -> None:
    registry = kind()
    pid = node.spawn(wait_forever)
    registry.register("key", pid, value=("open", 7))
    assert [entry.value for entry in registry.match("key", lambda value: value[0] == "open")] == [("open", 7)]
    assert registry.match("key", lambda value: value[0] == "closed") == []
    assert registry.match("free", lambda value: True) == []


@pytest.mark.parametrize("kind", [sup.Registry, sup.DuplicateRegistry])
async def test_r04_listeners_get_events(node: sup.Node, kind: type[sup.Registry] | type[sup.DuplicateRegistry]) -> None:
    owner = node.spawn(wait_forever)

    async def body() -> None:
        registry = kind(listeners=[sup.self(), node.registry.via("nobody")])
        registry.register("a", owner, value=1)
        registry.register("b", owner)
        sup.exit(owner, sup.Killed())
        await sup.wait_down(owner)
        got = [await sup.receive() for _ in range(4)]
        assert got == [
            sup.Registered(registry, "a", owner, 1),
            sup.Registered(registry, "b", owner, None),
            sup.Unregistered(registry, "a", owner),
            sup.Unregistered(registry, "b", owner),
        ]
        registry.register("c")
        registry.unregister("c")
        assert await sup.receive() == sup.Registered(registry, "c", sup.self(), None)
        assert await sup.receive() == sup.Unregistered(registry, "c", sup.self())
        registry.remove_listener(sup.self())
        registry.remove_listener(sup.self())
        registry.register("d")
        assert len(sup.self().mailbox) == 0

    await in_process(node, body)


async def test_r04_listener_may_be_a_name_and_a_dead_one_is_forgotten(node: sup.Node) -> None:
    registry = sup.Registry()
    listener = node.spawn(wait_forever, name="listener")
    registry.add_listener(node.registry.via("listener"))
    registry.add_listener(listener)
    pid = node.spawn(wait_forever)
    registry.register("a", pid)
    assert len(listener.mailbox) == 2
    await killed(listener)
    registry.add_listener(listener)
    registry.register("b", pid)
    again = node.spawn(wait_forever, name="listener")
    registry.register("c", pid)
    assert len(again.mailbox) == 1


@pytest.mark.parametrize("wrap", [lambda key: key, lambda key: (key, "x"), lambda key: frozenset([key])])
@pytest.mark.parametrize("kind", [sup.Registry, sup.DuplicateRegistry])
async def test_r05_keys_compare_strictly(
    node: sup.Node, wrap: Any, kind: type[sup.Registry] | type[sup.DuplicateRegistry]
) -> None:
    registry = kind()
    owners = {one: node.spawn(wait_forever) for one in (int, float, bool)}
    for one, owner in owners.items():
        registry.register(wrap(one(1)), owner)
    for one, owner in owners.items():
        assert [entry.pid for entry in registry.lookup(wrap(one(1)))] == [owner]


@pytest.mark.parametrize("wrap", [lambda key: key, lambda key: (key, "x"), lambda key: frozenset([key])])
async def test_r05_names_compare_strictly(node: sup.Node, wrap: Any) -> None:
    registry = sup.Registry()
    owners = {kind: node.spawn(wait_forever) for kind in (int, float, bool)}
    for kind, owner in owners.items():
        registry.register(wrap(kind(1)), owner)
    for kind, owner in owners.items():
        assert registry.whereis(wrap(kind(1))) is owner
        assert registry.via(wrap(kind(1))).resolve() is owner
    assert len({registry.via(wrap(kind(1))) for kind in owners}) == 3
    assert registry.via("a") == registry.via("a") != sup.Registry().via("a")


async def test_r05_a_key_of_a_subclass_of_str_is_another_key(node: sup.Node) -> None:
    class Color(enum.StrEnum):
        RED = "red"

    registry = sup.Registry()
    registry.register(Color.RED, node.spawn(wait_forever))
    assert registry.whereis("red") is None
    assert registry.whereis(Color.RED) is not None
    with pytest.raises(TypeError):
        registry.whereis(["not hashable"])  # type: ignore[arg-type]
