"""Applications: rows A01 to A04 of the conformance list, and what else they promise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import pytest
import trio
from actors import Broken, World, crash, pids, worker
from hypothesis import given
from hypothesis import strategies as st

import supervisors as sup
from supervisors.supervision.application import start_order
from supervisors.testing import settle


def application(world: World, name: str, *dependencies: str, intensity: int = 0, **fields: Any) -> sup.Application:
    """One worker, of the same name, under a supervisor."""
    start = (sup.Supervisor, (sup.SupervisorFlags(intensity=intensity), [worker(world, name)]))
    return sup.Application(name, start, dependencies, **fields)


def chain(node: sup.Node, world: World) -> sup.Applications:
    """web depends on store and log, store on disk and log."""
    return sup.Applications(
        node,
        [
            application(world, "web", "store", "log"),
            application(world, "store", "disk", "log"),
            application(world, "disk"),
            application(world, "log"),
        ],
    )


async def worker_of(running: Mapping[str, Any], name: str) -> Any:
    return (await pids(running[name]))[name]


async def test_a01_start_without_a_dependency_is_refused_and_ensure_all_started_starts_it_first(
    node: sup.Node, world: World
) -> None:
    applications = chain(node, world)
    with pytest.raises(sup.NotStarted) as missing:
        await applications.start("web")
    assert missing.value.name == "store"
    assert world.log == []
    log = await applications.start("log")
    assert await applications.ensure_all_started("web") == ["disk", "store", "web"], "only the new ones"
    assert world.ups() == ["log", "disk", "store", "web"]
    assert await applications.ensure_all_started("web") == []
    assert applications.running["log"] is log
    assert list(applications.running) == ["log", "disk", "store", "web"]
    with pytest.raises(sup.AlreadyStarted) as started:
        await applications.start("log")
    assert started.value.pid is log


async def test_a02_failure_deep_in_the_chain_stops_what_it_started_and_leaves_the_rest(
    node: sup.Node, world: World
) -> None:
    applications = chain(node, world)
    log = await applications.start("log")
    world.failing.add("web")
    with pytest.raises(sup.ApplicationFailed) as failed:
        await applications.ensure_all_started("web")
    assert failed.value.name == "web"
    assert "application 'web'" in str(failed.value)
    assert isinstance(failed.value.__cause__, Broken)
    assert world.downs() == ["store", "disk"]
    assert applications.running == {"log": log}
    world.failing.clear()
    assert await applications.ensure_all_started("web") == ["disk", "store", "web"]


@pytest.mark.parametrize("fails", [False, True])
async def test_a03_two_starts_at_once_are_one_start_with_the_same_result(
    node: sup.Node, world: World, fails: bool
) -> None:
    class Slow(sup.Supervisor):
        async def init(self) -> Any:
            inits.append(trio.current_time())
            await trio.sleep(5)
            if fails:
                raise Broken("slow")
            return sup.SupervisorFlags(), []

    inits: list[float] = []
    results: list[Any] = []
    applications = sup.Applications(node, [sup.Application("slow", Slow)])

    async def start() -> None:
        try:
            results.append(await applications.start("slow"))
        except sup.ApplicationFailed as exc:
            results.append(exc.reason)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(start)
        await trio.sleep(1)
        nursery.start_soon(start)
    assert inits == [0]
    assert trio.current_time() == 5
    assert results[0] == results[1]
    assert isinstance(results[0], sup.Crashed if fails else sup.Pid)


async def test_a03_the_start_outlives_whoever_asked_first(node: sup.Node, world: World) -> None:
    world.hanging.add("log")
    applications = chain(node, world)
    with trio.move_on_after(1):
        await applications.start("log")
    with trio.move_on_after(1):
        await applications.ensure_all_started("log")
    assert world.starts["log"] == 1


@pytest.mark.parametrize(
    ("type", "reason", "ends"),
    [
        ("permanent", "abnormal", True),
        ("permanent", sup.Normal(), True),
        ("transient", "abnormal", True),
        ("transient", sup.Shutdown(), False),
        ("temporary", "abnormal", False),
    ],
)
async def test_a04_end_of_an_application_ends_the_node_when_its_type_says_so(
    world: World, type: Any, reason: object, ends: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Ending(sup.GenServer):
        async def handle_cast(self, message: Any) -> Any:
            return sup.Stop(message)

    async def program() -> None:
        async with sup.open_node(stall_seconds=math.inf) as node:
            applications = sup.Applications(
                node, [application(world, "other"), sup.Application("ending", Ending, type=type)]
            )
            await applications.start("other")
            sup.cast(await applications.start("ending"), reason)
            await trio.sleep(10)
            assert list(applications.running) == ["other"]
            assert "application" in "".join(r.getMessage() for r in caplog.records) or sup.is_normal(reason)

    if ends:
        with pytest.raises(sup.ApplicationEnded) as ended:
            await program()
        assert (ended.value.name, ended.value.reason) == ("ending", reason)
        assert trio.current_time() == 0
    else:
        await program()
        assert trio.current_time() == 10
    assert world.downs() == ["other"], "stopped in good order"


async def test_a04_crash_beyond_the_intensity_ends_a_permanent_application_and_the_node(world: World) -> None:
    async def program() -> None:
        async with sup.open_node() as node:
            applications = sup.Applications(node, [application(world, "core", intensity=1, type="permanent")])
            await applications.start("core")
            await crash(await worker_of(applications.running, "core"))
            assert list(applications.running) == ["core"]
            await crash(await worker_of(applications.running, "core"))
            await trio.sleep_forever()

    with pytest.raises(sup.ApplicationEnded):
        await program()


async def test_a04_stop_by_hand_and_the_stop_of_the_node_are_no_end_by_itself(world: World) -> None:
    async with sup.open_node() as node:
        applications = sup.Applications(node, [application(world, id, type="permanent") for id in "ab"])
        await applications.start("a")
        await applications.start("b")
        await applications.stop("a")
        assert list(applications.running) == ["b"]
        with pytest.raises(sup.NotStarted):
            await applications.stop("a")
        await applications.start("a")
    assert world.downs() == ["a", "a", "b"]
    with pytest.raises(sup.NodeStopped):
        await applications.start("a")


async def test_a04_node_stops_within_its_deadline_with_a_stuck_application(world: World) -> None:
    world.stop_seconds["stuck"] = 1e6
    start = (sup.Supervisor, (sup.SupervisorFlags(), [worker(world, "stuck", shutdown=math.inf)]))
    async with sup.open_node(stop_seconds=30) as node:
        applications = sup.Applications(node, [application(world, "fine"), sup.Application("stuck", start)])
        await applications.start("fine")
        await applications.start("stuck")
    assert trio.current_time() == 30
    assert applications.running == {}


async def test_application_without_a_top_process_has_failed(node: sup.Node) -> None:
    class Ignoring(sup.Supervisor):
        def init(self) -> Any:
            return sup.IGNORE

    applications = sup.Applications(node, [sup.Application("none", Ignoring)])
    with pytest.raises(sup.ApplicationFailed) as failed:
        await applications.start("none")
    assert isinstance(failed.value.__cause__, sup.BadReturnValue)


async def test_application_belongs_to_nobody_that_asked_for_it(node: sup.Node, world: World) -> None:
    applications = chain(node, world)

    async def asking() -> None:
        await applications.start("log")

    await sup.wait_down(node.spawn(asking))
    await settle()
    assert applications.running["log"].parent is None


async def test_what_is_wrong_with_an_application_is_named(node: sup.Node, world: World) -> None:
    for field, fields in (
        ("name", {"name": "", "start": sup.Supervisor}),
        ("start", {"name": "a", "start": trio.sleep}),
        ("type", {"name": "a", "start": sup.Supervisor, "type": "eternal"}),
    ):
        with pytest.raises(sup.BadApplication) as refused:
            sup.Application(**fields)  # type: ignore[arg-type]
        assert refused.value.field == field
    with pytest.raises(sup.BadApplication, match="twice"):
        sup.Applications(node, [application(world, "a"), application(world, "a")])
    with pytest.raises(sup.BadApplication, match="a -> b -> a"):
        sup.Applications(node, [application(world, "a", "b"), application(world, "b", "a")])
    applications = sup.Applications(node, [application(world, "a", "unknown")])
    with pytest.raises(sup.NotStarted):
        await applications.start("a")
    for ask in (applications.ensure_all_started, applications.start):
        with pytest.raises(sup.UnknownApplication):
            await ask("unknown")
    with pytest.raises(sup.UnknownApplication):
        await applications.ensure_all_started("a")


@given(st.lists(st.sets(st.integers(0, 9)), min_size=1, max_size=10))
def test_each_application_comes_after_its_dependencies(edges: list[set[int]]) -> None:
    known = {
        str(n): sup.Application(str(n), sup.Supervisor, [str(d) for d in sorted(deps) if d < n])  # type: ignore
        for n, deps in enumerate(edges)
    }
    for name in known:
        order = start_order(known, name)
        assert order[-1] == name
        for place, each in enumerate(order):
            assert set(known[each].dependencies) <= set(order[:place])


async def test_ensure_all_started_joins_a_start_under_way_and_does_not_call_it_its_own(
    node: sup.Node, world: World
) -> None:
    class Slow(sup.Supervisor):
        async def init(self) -> Any:
            await trio.sleep(5)
            return sup.SupervisorFlags(), []

    world.failing.add("top")
    applications = sup.Applications(node, [sup.Application("slow", Slow), application(world, "top", "slow")])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(applications.start, "slow")
        await settle()
        with pytest.raises(sup.ApplicationFailed):
            await applications.ensure_all_started("top")
    assert list(applications.running) == ["slow"], "started by another, and not stopped"


async def test_what_has_ended_by_itself_is_not_stopped_again_when_a_later_one_fails(
    node: sup.Node, world: World
) -> None:
    class Failing(sup.Supervisor):
        async def init(self) -> Any:
            sup.exit(applications.running["short"], sup.Killed())
            await settle()
            raise Broken("failing")

    parts = [
        application(world, "long"),
        application(world, "short", "long"),
        sup.Application("failing", Failing, dependencies=("short",)),
    ]
    applications = sup.Applications(node, parts)
    with pytest.raises(sup.ApplicationFailed):
        await applications.ensure_all_started("failing")
    assert dict(applications.running) == {}


async def test_the_arguments_of_an_application_are_those_of_its_class(node: sup.Node) -> None:
    class Named(sup.GenServer):
        def __init__(self, **arguments: object) -> None:
            self.arguments = arguments

    arguments = {"name": "n", "label": "l", "timeout": 1, "server": "s"}
    applications = sup.Applications(
        node,
        [sup.Application("named", (Named, (), arguments)), sup.Application("wrong", (sup.Supervisor, (), arguments))],
    )
    pid = await applications.start("named")
    assert pid.label == "named"
    assert (await sup.get_state(pid)).arguments == arguments
    with pytest.raises(sup.ApplicationFailed) as failed:
        await applications.start("wrong")
    assert isinstance(failed.value.__cause__, TypeError)


@pytest.mark.parametrize("ended", [True, False])
async def test_a_start_that_the_end_of_the_node_overtakes_says_so(ended: bool) -> None:
    failures: list[BaseException | None] = []

    async def ask(applications: sup.Applications) -> None:
        with pytest.raises(sup.ApplicationFailed) as failed:
            await applications.start("slow")
        failures.append(failed.value.__cause__)

    class Slow(sup.GenServer):
        async def init(self) -> None:
            await trio.sleep_forever()

    async with trio.open_nursery() as outside:
        with pytest.raises(sup.NodeStopped) if ended else nullcontext():
            async with sup.open_node() as node:
                applications = sup.Applications(node, [sup.Application("slow", Slow)])
                outside.start_soon(ask, applications)
                await settle()
                if ended:
                    node.end(sup.NodeStopped("test"))
                    await trio.sleep_forever()
    assert len(failures) == 1


async def test_a_start_that_had_not_begun_when_the_node_ended_does_not_hang_it() -> None:
    for _ in range(20):  # which of the two tasks runs first is chance
        world = World()
        with trio.CancelScope() as outer:
            async with sup.open_node(stall_seconds=math.inf) as node:
                applications = sup.Applications(node, [application(world, "web")])
                outer.cancel()
                await applications.start("web")
        assert outer.cancelled_caught
        assert world.ups() == world.downs()
        with pytest.raises(sup.NodeStopped):
            await applications.start("web")
