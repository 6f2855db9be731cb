"""What a tree looks like, in text and in assertions."""

from __future__ import annotations

import pytest
from actors import Defiant, World, crash, wait_forever, worker

import supervisors as sup
from supervisors.testing import (
    advance,
    assert_no_process_left,
    assert_restarted,
    assert_tree,
    outline,
    settle,
)


async def start_tree(node: sup.Node, world: World) -> sup.Pid[sup.Supervisor]:
    """root: a, then a supervisor with b, then a pool with one worker."""
    specs = [
        worker(world, "a"),
        sup.child(sup.Supervisor, None, [worker(world, "b")], id="inner"),
        sup.child(sup.DynamicSupervisor, name="pool"),
    ]
    root = await node.start(sup.Supervisor, None, specs, label="root")
    await sup.start_child(node.registry.via("pool"), sup.child(wait_forever, id=7, label="seven"))
    return root


async def test_a_tree_is_compared_with_text(node: sup.Node, world: World) -> None:
    root = await start_tree(node, world)
    assert_tree(
        root,
        """
        root
          a
          inner
            b
          pool
            seven
        """,
    )
    with pytest.raises(AssertionError, match=r"(?s)-    c\n\+    b"):
        assert_tree(root, outline(root).replace("b", "c"))


async def test_a_tree_is_compared_with_a_literal(node: sup.Node, world: World) -> None:
    root = await start_tree(node, world)
    assert_tree(root, {"root": ["a", {"inner": "b", "pool": ["seven"]}]})
    assert_tree(root, {"root": {"a": None, "inner": {"b": None}, "pool": {"seven": []}}})
    with pytest.raises(AssertionError, match="another tree"):
        assert_tree(root, ["root", "a"])


async def test_a_node_shows_all_that_it_started(node: sup.Node, world: World) -> None:
    assert outline(node) == ""
    node.spawn(wait_forever, label="first")
    await start_tree(node, world)
    assert outline(node).splitlines()[:3] == ["first", "root", "  a"]
    assert outline(node.registry.via("pool")) == "pool\n  seven"
    with pytest.raises(sup.NoProc):
        outline(node.registry.via("nobody"))


async def test_children_that_do_not_run_are_marked(node: sup.Node, world: World) -> None:
    defiant = Defiant()
    specs = [worker(world, "stopped"), worker(world, "hanging"), sup.child(defiant.run, id="defiant", shutdown=0)]
    root = await node.start(sup.Supervisor, None, specs, label="root")
    await sup.terminate_child(root, "stopped")
    node.spawn(sup.terminate_child, root, "defiant")
    await settle()
    assert_tree(root, ["root", "  stopped (stopped)", "  hanging", "  defiant (stopping)"])
    await advance(2)
    world.hanging.add("hanging")
    await crash((await sup.which_child(root, "hanging")).pid)  # type: ignore[arg-type]
    assert_tree(root, ["root", "  stopped (stopped)", "  hanging (restarting)", "  defiant (stopping)"])
    world.hanging.add("new")
    node.spawn(sup.start_child, root, worker(world, "new"))
    await sup.terminate_child(root, "hanging")
    await settle()
    assert "  new (starting)" in outline(root)
    defiant.released.set()


async def test_no_process_left(node: sup.Node) -> None:
    assert_no_process_left(node)
    pid = node.spawn(wait_forever, label="left")
    await settle()
    with pytest.raises(AssertionError, match=r"(?s)processes are left:\nleft\n.*wait_forever"):
        assert_no_process_left(node)
    sup.exit(pid, sup.Killed())
    await sup.wait_down(pid)
    assert_no_process_left(node)


async def test_restarted_exactly_so_often(node: sup.Node, world: World) -> None:
    flags = sup.SupervisorFlags(intensity=10)
    specs = [worker(world, "a"), worker(world, "b", label="second")]
    root = await node.start(sup.Supervisor, flags, specs)
    assert_restarted(root, "a", times=0)
    await crash((await sup.which_child(root, "a")).pid)  # type: ignore[arg-type]
    await crash((await sup.which_child(root, "a")).pid)  # type: ignore[arg-type]
    assert_restarted(root, "a", times=2)
    assert_restarted(node, "a", times=2)
    assert_restarted(root, "b", times=0)
    assert_restarted(root, "second", times=0)
    with pytest.raises(AssertionError, match="exactly 1 times, but: a 2"):
        assert_restarted(root, "a", times=1)
    with pytest.raises(AssertionError, match="'c' was not restarted exactly 0 times, but: there is none"):
        assert_restarted(root, "c", times=0)


async def test_a_dynamic_child_is_named_by_its_pid_as_well(node: sup.Node, world: World) -> None:
    pool = await node.start(sup.DynamicSupervisor)
    pid = await sup.start_child(pool, worker(world, "a"))
    assert_restarted(pool, pid, times=0)
    await crash(pid)
    assert_restarted(pool, "a", times=1)
    await sup.start_child(pool, worker(world, "a"))
    with pytest.raises(AssertionError, match="but: a 1, a 0"):
        assert_restarted(pool, "a", times=1)
