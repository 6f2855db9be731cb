"""The snapshot of the tree of processes, its text and its values for JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from actors import Defiant, Echo, World, crash, wait_forever, worker

import supervisors as sup
from supervisors.processes.process import watch_exit
from supervisors.testing import settle


def by_label(root: sup.ProcessInfo) -> dict[str, sup.ProcessInfo]:
    return {info.label: info for info in root.walk()}


class Caller(sup.GenServer):
    def __init__(self, callee: sup.Pid[Any]) -> None:
        self.callee = callee

    async def handle_cast(self, message: Any) -> Any:
        await sup.call(self.callee, "never answered", timeout=1000)


class Busy(sup.GenServer):
    async def handle_call(self, request: Any, from_: sup.From) -> Any:
        await trio.sleep_forever()

    async def terminate(self, reason: Any) -> None:
        await trio.sleep(3)


async def test_children_stand_in_start_order_with_those_that_do_not_run(node: sup.Node, world: World) -> None:
    specs = [worker(world, name) for name in ("a", "b", "c")] + [worker(world, "d", restart="transient")]
    root = await node.start(sup.Supervisor, sup.SupervisorFlags(), specs, label="root")
    await sup.start_child(root, sup.child(sup.DynamicSupervisor, id="pool"))
    await sup.terminate_child(root, "b")
    await sup.restart_child(root, "b")
    await sup.terminate_child(root, "c")
    world.hanging.add("a")
    await crash((await sup.which_child(root, "a")).pid)  # type: ignore[arg-type]
    info = sup.tree(root)
    assert [(child.id, child.type, child.status) for child in info.children] == [
        ("a", "server", "restarting"),
        ("b", "server", "running"),
        ("c", "server", "stopped"),
        ("d", "server", "running"),
        ("pool", "supervisor", "running"),
    ]
    assert (info.id, info.type, info.status, info.waiting_for) == (
        "root",
        "supervisor",
        "waiting",
        info.children[0].pid,
    )
    assert info.children[2].pid is None
    whole = sup.tree()
    assert (whole.type, whole.pid, whole.id, whole.status) == ("node", None, "test", "running")
    assert whole.children == (info,)


async def test_restarts_queue_links_and_messages_are_counted(node: sup.Node, world: World) -> None:
    flags = sup.SupervisorFlags(intensity=10)
    root = await node.start(sup.Supervisor, flags, [worker(world, "a"), worker(world, "b")], label="root")
    for _ in range(3):
        await crash((await sup.which_child(root, "a")).pid)  # type: ignore[arg-type]
    a = (await sup.which_child(root, "a")).pid
    assert isinstance(a, sup.Pid)
    await sup.suspend(a)
    for n in range(5):
        sup.cast(a, n)

    async def linked() -> None:
        sup.link(a)
        await trio.sleep_forever()

    friend = node.spawn(linked)
    await settle()
    info = sup.tree(a)
    assert (info.restarts, info.queue_length, info.handled, info.links) == (3, 5, 1, (friend,))
    assert info.status == "suspended"
    assert (await sup.which_child(root, "b")).pid in [child.pid for child in sup.tree(root).children]
    assert by_label(sup.tree(node))["linked"].links == (a,)


async def test_a_child_waiting_for_its_restart_has_no_process(node: sup.Node, world: World) -> None:
    flags = sup.SupervisorFlags(intensity=9, backoff=sup.Backoff(initial=60, maximum=60, jitter=0))
    specs = [worker(world, "a", label="labelled"), sup.child(crash_when_told), sup.child(sup.Supervisor)]
    root = await node.start(sup.Supervisor, flags, specs, label="root")
    for info in sup.tree(root).children:
        assert info.pid is not None
        sup.exit(info.pid, sup.Killed())
    await settle()
    assert [(child.id, child.label, child.type, child.status, child.pid) for child in sup.tree(root).children] == [
        ("a", "labelled", "server", "restarting", None),
        ("crash_when_told", "crash_when_told", "process", "restarting", None),
        ("Supervisor", "Supervisor", "supervisor", "restarting", None),
    ]


async def crash_when_told() -> None:
    await sup.receive()


async def test_a_process_that_hangs_is_seen_and_whom_others_wait_for(node: sup.Node) -> None:
    busy = await node.start(Busy, label="busy")
    caller = await node.start(Caller, busy, label="caller")
    sup.cast(caller, "go")
    await settle()
    shown = by_label(sup.tree(node))
    assert (shown["busy"].status, shown["busy"].idle, shown["busy"].waiting_for) == ("running", False, None)
    assert (shown["caller"].status, shown["caller"].waiting_for) == ("waiting", busy)
    echo = await node.start(Echo, label="echo")
    await settle()
    assert by_label(sup.tree(node))["echo"].idle
    assert sup.tree(echo).status == "running"


async def test_starting_and_stopping_are_told_apart(node: sup.Node, world: World) -> None:
    world.hanging.add("slow")
    root = await node.start(sup.DynamicSupervisor, label="root")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sup.start_child, root, worker(world, "slow"))
        busy = await node.start(Busy, label="busy")
        await settle()
        assert [child.status for child in sup.tree(root).children] == ["starting"]
        nursery.start_soon(sup.stop, busy)
        defiant = Defiant()
        child = await sup.start_child(root, sup.child(defiant.run, id="defiant", shutdown=1))
        await defiant.running.wait()
        nursery.start_soon(sup.terminate_child, root, child)
        await settle()
        shown = by_label(sup.tree(node))
        assert shown["busy"].status == "stopping", "its terminate runs"
        assert shown["defiant"].status == "stopping"
        nursery.cancel_scope.cancel()
    defiant.released.set()


async def test_an_ended_child_that_its_supervisor_has_not_dealt_with(node: sup.Node, world: World) -> None:
    root = await node.start(sup.Supervisor, sup.SupervisorFlags(), [worker(world, "a")], label="root")
    pid = (await sup.which_child(root, "a")).pid
    assert isinstance(pid, sup.Pid)
    seen = []
    watch_exit(pid, lambda _: seen.append(sup.tree(root).children[0]))
    sup.exit(pid, sup.Killed())
    await settle()
    assert [(info.pid, info.status) for info in seen] == [(pid, "stopped")]
    assert sup.tree(root).children[0].status == "running"


async def test_plain_processes_stand_under_the_one_that_started_them(node: sup.Node) -> None:
    started = trio.Event()

    async def grandparent() -> None:
        async def parent() -> None:
            sup.spawn(wait_forever, label="child")
            started.set()
            await trio.sleep_forever()

        sup.spawn(parent, label="parent")
        await trio.sleep_forever()

    top = node.spawn(grandparent, label="grandparent")
    await started.wait()
    root = sup.tree(node)
    assert sup.format_tree(root).count("─ ") == 3
    (one,) = root.children
    (two,) = one.children
    (three,) = two.children
    assert [info.label for info in (one, two, three)] == ["grandparent", "parent", "child"]
    assert {info.type for info in (one, two, three)} == {"process"}
    sup.exit(top, sup.Killed())
    await settle()
    assert [info.label for info in sup.tree(node).children] == ["parent"], "the parent of a process has ended"


async def test_what_a_supervisor_starts_beside_its_children_stands_after_them(node: sup.Node, world: World) -> None:
    class Spawning(sup.Supervisor):
        def init(self) -> Any:
            sup.spawn(wait_forever, label="beside")
            return sup.SupervisorFlags(), [worker(world, "a")]

    info = sup.tree(await node.start(Spawning, label="root"))
    assert [(child.label, child.type) for child in info.children] == [("a", "server"), ("beside", "process")]
    assert info.children[1].pid is not None
    assert sup.tree(info.children[1].pid) == info.children[1]


async def test_a_deep_tree_needs_no_recursion(node: sup.Node) -> None:
    depth = 1100

    async def nested(left: int) -> None:
        if left:
            sup.spawn(nested, left - 1)
        await trio.sleep_forever()

    node.spawn(nested, depth)
    await settle()
    root = sup.tree()
    assert sum(1 for _ in root.walk()) == depth + 2
    assert len(sup.format_tree(root).splitlines()) == depth + 2
    assert root.as_dict()["children"][0]["children"][0]["label"] == "nested"
    for pid in reversed(node.processes):
        sup.exit(pid, sup.Killed())


async def test_a_name_will_do_and_a_dead_process_has_no_tree(node: sup.Node) -> None:
    pid = await node.start(Echo, name="echo")
    via = node.registry.via("echo")
    assert sup.tree(via).pid is pid
    await sup.stop(pid)
    for target in (pid, via):
        with pytest.raises(sup.NoProc):
            sup.tree(target)


async def test_the_snapshot_is_a_value_that_later_events_do_not_change(node: sup.Node) -> None:
    pid = await node.start(Echo, label="echo")
    before = sup.tree(pid)
    await sup.call(pid, 1)
    assert before.handled == 0
    assert sup.tree(pid).handled == 1
    with pytest.raises(AttributeError):
        before.handled = 2  # type: ignore[misc]


async def test_text_and_json(node: sup.Node, world: World) -> None:
    specs = [worker(world, name) for name in ("a", "b")] + [
        sup.ChildSpec(id=("c", 1), start=(wait_forever, (), {}), label="other", restart="temporary")
    ]
    root = await node.start(sup.Supervisor, sup.SupervisorFlags(intensity=9), specs, label="root")
    await sup.terminate_child(root, "b")
    a = (await sup.which_child(root, "a")).pid
    assert isinstance(a, sup.Pid)
    busy = await node.start(Busy, label="busy")
    node.spawn(call_forever, busy, label="client")
    sup.send_request(busy, 1)
    await crash(a)
    info = sup.tree(node)
    again = info.children[0].children[0].pid
    assert sup.format_tree(info).splitlines() == [
        "test  node, running",
        f"├── <0.1 root>  supervisor, running, handled {root.mailbox.handled}",
        f"│   ├── {again!r}  server, running, restarts 1",
        "│   ├── b  server, stopped",
        "│   └── ('c', 1) <0.4 other>  process, running",
        "├── <0.5 busy>  server, running, queue 1, handled 1",
        "└── <0.6 client>  process, waiting for <0.5 busy>",
    ]
    assert sup.format_tree(info, max_children=1).splitlines()[-3:] == [
        f"│   ├── {again!r}  server, running, restarts 1",
        "│   └── and 2 more",
        "└── and 2 more",
    ]
    plain = json.loads(json.dumps(info.as_dict()))
    assert plain["children"][0]["children"][2]["id"] == "('c', 1)"
    assert plain["children"][2]["waiting_for"] == repr(busy)
    assert plain["children"][0]["children"][1]["pid"] is None


async def call_forever(pid: sup.Pid[Any]) -> None:
    await sup.call(pid, "x", timeout=1000)


async def test_a_node_that_has_closed_is_stopped() -> None:
    async with sup.open_node("closing") as node:
        assert sup.tree(node).status == "running"
    assert sup.tree(node).status == "stopped"
    assert sup.format_tree(sup.tree(node)) == "closing  node, stopped"


async def test_links_stand_in_the_text(node: sup.Node) -> None:
    pid = await node.start(Echo, label="echo")

    async def linked() -> None:
        sup.link(pid)
        await trio.sleep_forever()

    friend = node.spawn(linked)
    await settle()
    assert sup.format_tree(sup.tree(pid)).endswith(f"links {friend!r}")
    for _ in range(9):
        node.spawn(linked)
    await settle()
    assert sup.format_tree(sup.tree(pid)).endswith("and 6 more")
    assert len(sup.tree(pid).links) == 10
