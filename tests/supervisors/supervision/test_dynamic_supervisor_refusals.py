"""What a dynamic supervisor refuses, and names that are taken."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from actors import Defiant, Echo, World, crash, wait_forever, worker

import supervisors as sup
from supervisors.testing import settle


@pytest.mark.parametrize("max_children", [-1, True, float("nan")])
async def test_a_wrong_bound_is_refused_by_name(node: sup.Node, max_children: Any) -> None:
    with pytest.raises(sup.StartFailed) as failed:
        await node.start(sup.DynamicSupervisor, max_children=max_children)
    assert isinstance(failed.value.__cause__, sup.BadFlags)
    assert failed.value.__cause__.field == "max_children"


async def test_a_supervisor_that_ignores_itself(node: sup.Node) -> None:
    class Unwanted(sup.DynamicSupervisor):
        def init(self) -> sup.Ignore:
            return sup.IGNORE

    assert await node.start(Unwanted) is sup.IGNORE


async def test_what_names_no_child_is_not_found(node: sup.Node) -> None:
    pool = await node.start(sup.DynamicSupervisor)
    for nobody in ("id", ["not hashable"], node.spawn(wait_forever)):
        with pytest.raises(sup.NotFound):
            await sup.which_child(pool, nobody)  # type: ignore[arg-type]


async def test_a_child_whose_name_is_taken_is_refused_and_not_kept(node: sup.Node, reports: list[Any]) -> None:
    pool = await node.start(sup.DynamicSupervisor)
    owner = await node.start(Echo, name="echo")
    with pytest.raises(sup.AlreadyStarted) as taken:
        await sup.start_child(pool, sup.child(Echo, name="echo"))
    assert taken.value.pid is owner
    assert (await sup.count_children(pool)).specs == 0
    assert [report.context for report in reports] == ["start_error"]


async def test_a_restart_whose_name_was_taken_is_tried_again_until_there_were_too_many(
    node: sup.Node, world: World, reports: list[Any]
) -> None:
    pool = await node.start(sup.DynamicSupervisor, intensity=3)
    pid = await sup.start_child(pool, worker(world, "a", name="name"))
    heir = node.spawn(wait_forever)

    def take_over(report: Any) -> None:
        if isinstance(report, sup.SupervisorReport) and report.context == "child_terminated":
            node.registry.register("name", heir)

    sup.on_report(node, take_over)
    await crash(pid)
    assert await sup.wait_down(pool) == sup.Shutdown()
    assert world.ups() == ["a"]
    assert [report.context for report in reports if isinstance(report, sup.SupervisorReport)] == [
        "progress",
        "child_terminated",
        *["start_error"] * 3,
        "shutdown",
    ]
    assert node.registry.whereis("name") is heir


async def test_stopping_a_child_that_is_being_stopped_waits_with_the_other(node: sup.Node) -> None:
    defiant = Defiant()
    pool = await node.start(sup.DynamicSupervisor)
    pid = await sup.start_child(pool, sup.child(defiant.run, shutdown=0))
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(sup.terminate_child, pool, pid)
        await settle()
        defiant.released.set()
    assert (await sup.count_children(pool)).specs == 0
