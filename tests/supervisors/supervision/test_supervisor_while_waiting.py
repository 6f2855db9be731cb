"""What a supervisor does with its queue while it waits, and with news that concern nobody any more."""

from __future__ import annotations

import math
from typing import Any

import pytest
from actors import World, wait_forever, worker

import supervisors as sup
from supervisors.testing import assert_tree, settle


async def test_it_answers_system_messages_while_a_child_hangs_in_its_start(node: sup.Node, world: World) -> None:
    root = await node.start(sup.Supervisor)
    world.hanging.add("a")
    node.spawn(sup.start_child, root, worker(world, "a"))
    await settle()
    status: Any = await sup.get_status(root)
    assert [(info.id, info.pid) for info in status["state"]] == [("a", None)]


async def test_commands_that_wait_for_their_turn_fail_when_it_is_stopped(node: sup.Node, world: World) -> None:
    root = await node.start(sup.Supervisor)
    world.hanging.add("a")
    node.spawn(sup.start_child, root, worker(world, "a"))
    await settle()
    waiting = node.spawn(sup.start_child, root, worker(world, "b"))
    crashing = node.spawn(sup.send, root, "put off as well")
    await settle()
    assert not crashing.alive
    await sup.stop(root, sup.Shutdown())
    reason = await sup.wait_down(waiting)
    assert isinstance(reason, sup.Crashed)
    assert isinstance(reason.exception, sup.ServerExited)
    assert world.ups() == []


@pytest.mark.parametrize("kind", [sup.Supervisor, sup.DynamicSupervisor])
async def test_the_end_of_a_process_that_is_no_child_changes_nothing(node: sup.Node, world: World, kind: Any) -> None:
    root = await node.start(kind, label="root")
    await sup.start_child(root, worker(world, "a"))
    stranger = node.spawn(wait_forever)
    sup.exit(stranger, sup.Killed())
    await sup.wait_down(stranger)
    root._loop._child_exit(stranger)
    await settle()
    assert_tree(root, {"root": "a"})


async def test_nothing_is_started_before_it_is_due(node: sup.Node) -> None:
    root: Any = await node.start(sup.Supervisor)
    await root._loop.start_pending()
    assert (await sup.count_children(root)).specs == 0


async def test_a_child_that_commands_its_supervisor_while_it_is_stopped_is_told_of_the_deadlock(node: sup.Node) -> None:
    told: list[BaseException] = []

    class Commanding(sup.GenServer):
        async def terminate(self, reason: object) -> None:
            supervisor = sup.self().parent
            assert supervisor is not None
            with pytest.raises(sup.Deadlock) as deadlock:
                await sup.terminate_child(supervisor, "other")
            told.append(deadlock.value)

    specs = [sup.child(Commanding, id="commanding", shutdown=math.inf), sup.child(sup.GenServer, id="other")]
    pid = await node.start(sup.Supervisor, None, specs)
    await sup.terminate_child(pid, "commanding")
    assert len(told) == 1
    assert (await sup.count_children(pid)).active == 1
