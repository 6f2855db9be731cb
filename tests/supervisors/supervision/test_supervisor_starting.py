"""Starting a supervisor, its specs and its commands: rows S01 to S17 of the conformance list, and S48."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import trio
from actors import Broken, Worker, World, crash, end, pids, wait_forever, worker

import supervisors as sup
from supervisors.testing import settle

FLAGS = sup.SupervisorFlags(intensity=10, period=10)


async def test_s01_without_children_answers_and_stops_with_shutdown(node: sup.Node) -> None:
    pid = await node.start(sup.Supervisor)
    assert await sup.which_children(pid) == []
    assert await sup.count_children(pid) == sup.ChildCounts(0, 0, 0, 0)
    await sup.stop(pid, sup.Shutdown())
    assert pid.exit_reason == sup.Shutdown()


async def test_s02_init_that_ignores_leaves_no_process_no_name_no_log(
    node: sup.Node, reports: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    class Ignoring(sup.Supervisor):
        def init(self) -> Any:
            return sup.IGNORE

    assert await node.start(Ignoring, name="ignoring") is sup.IGNORE
    assert node.registry.whereis("ignoring") is None
    assert node.processes == ()
    assert reports == []
    assert caplog.records == []


@pytest.mark.parametrize("wrong", ["raises", "value"])
async def test_s03_init_that_raises_or_returns_nonsense_fails_the_start(node: sup.Node, wrong: str) -> None:
    class Failing(sup.Supervisor):
        def init(self) -> Any:
            if wrong == "raises":
                raise Broken("init")
            return "nonsense"

    with pytest.raises(sup.StartFailed) as failed:
        await node.start(Failing, name="failing")
    cause = failed.value.__cause__
    assert isinstance(cause, Broken if wrong == "raises" else sup.BadReturnValue)
    assert failed.value.reason == sup.Crashed(cause)
    assert node.registry.whereis("failing") is None
    assert node.processes == ()


async def test_s04_ignored_child_keeps_its_spec_unless_temporary(node: sup.Node, world: World) -> None:
    world.ignoring |= {"a", "b", "c"}
    pid = await node.start(sup.Supervisor, FLAGS, [worker(world, "a"), worker(world, "b", restart="temporary")])
    assert await sup.count_children(pid) == sup.ChildCounts(1, 0, 0, 1)
    assert await pids(pid) == {"a": None}
    assert await sup.start_child(pid, worker(world, "c")) is sup.IGNORE
    assert await sup.start_child(pid, worker(world, "b", restart="temporary")) is sup.IGNORE
    assert await pids(pid) == {"c": None, "a": None}
    dynamic = await node.start(sup.DynamicSupervisor)
    assert await sup.start_child(dynamic, worker(world, "c")) is sup.IGNORE
    assert (await sup.count_children(dynamic)).specs == 0


@pytest.mark.parametrize("kind", [sup.Supervisor, sup.DynamicSupervisor])
async def test_s05_start_child_that_fails_tells_reason_and_spec_and_keeps_nothing(
    node: sup.Node, world: World, kind: Any
) -> None:
    pid = await node.start(kind)
    sibling = await sup.start_child(pid, worker(world, "sibling"))
    world.failing.add("bad")
    spec = worker(world, "bad")
    with pytest.raises(sup.StartFailed) as failed:
        await sup.start_child(pid, spec)
    assert isinstance(failed.value.__cause__, Broken)
    assert failed.value.reason == sup.Crashed(failed.value.__cause__)
    assert failed.value.spec is spec
    assert await pids(pid) == {"sibling": sibling}
    assert sibling.alive


async def test_s06_restart_child_that_fails_keeps_the_spec(node: sup.Node, world: World) -> None:
    pid = await node.start(sup.Supervisor, FLAGS, [worker(world, "a")])
    await sup.terminate_child(pid, "a")
    world.failing.add("a")
    with pytest.raises(sup.StartFailed):
        await sup.restart_child(pid, "a")
    assert await pids(pid) == {"a": None}
    world.failing.clear()
    assert (await sup.restart_child(pid, "a")).alive


async def test_s07_initial_child_that_fails_stops_those_before_it_in_reverse(node: sup.Node, world: World) -> None:
    world.failing.add("c")
    with pytest.raises(sup.StartFailed) as failed:
        await node.start(sup.Supervisor, FLAGS, [worker(world, id) for id in "abcd"])
    reason = failed.value.reason
    assert isinstance(reason, sup.FailedToStartChild)
    assert reason.id == "c"
    assert isinstance(reason.reason, sup.Crashed)
    assert failed.value.__cause__ is reason.reason.exception, "the traceback is not lost on the way up"
    assert world.ups() == ["a", "b"]
    assert world.downs() == ["b", "a"]
    assert node.processes == ()


async def test_s08_spec_defaults_and_get_childspec(node: sup.Node, world: World) -> None:
    minimal = sup.ChildSpec(id="a", start=(Worker, (world, "a"), {}))
    assert attrs.asdict(minimal, recurse=False) == {
        "id": "a",
        "start": (Worker, (world, "a"), {}),
        "restart": "permanent",
        "type": "worker",
        "shutdown": 5.0,
        "significant": False,
        "name": None,
        "label": None,
        "backoff": "inherit",
    }
    nested = sup.child(sup.Supervisor, id="sub")
    assert (nested.type, nested.shutdown) == ("supervisor", math.inf)
    pid = await node.start(sup.Supervisor, FLAGS, [minimal, nested])
    assert await sup.get_childspec(pid, "a") == minimal
    assert await sup.get_childspec(pid, (await pids(pid))["sub"]) == nested
    with pytest.raises(sup.NotFound):
        await sup.get_childspec(pid, "unknown")


GOOD = {"id": "a", "start": (wait_forever, (), {})}


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("id", {"start": GOOD["start"]}),
        ("start", {"id": "a"}),
        ("start", GOOD | {"start": ("not callable", (), {})}),
        ("start", GOOD | {"start": (int, (), {})}),
        ("id", GOOD | {"id": []}),
        ("restart", GOOD | {"restart": "sometimes"}),
        ("shutdown", GOOD | {"shutdown": -1}),
        ("shutdown", GOOD | {"shutdown": "soon"}),
        ("type", GOOD | {"type": "boss"}),
        ("significant", GOOD | {"significant": "yes"}),
        ("modules", GOOD | {"modules": []}),
    ],
)
async def test_s09_each_bad_field_of_a_spec_is_refused_by_name(
    node: sup.Node, field: str, fields: dict[str, Any]
) -> None:
    pid = await node.start(sup.Supervisor)
    with pytest.raises(sup.BadChildSpec) as refused:
        await sup.start_child(pid, fields)
    assert refused.value.field == field
    with pytest.raises(sup.StartFailed) as failed:
        await node.start(sup.Supervisor, FLAGS, [fields])
    assert isinstance(failed.value.__cause__, sup.BadChildSpec)
    assert failed.value.__cause__.field == field


async def test_s10_duplicate_ids_are_refused(node: sup.Node, world: World) -> None:
    with pytest.raises(sup.StartFailed) as failed:
        await node.start(sup.Supervisor, FLAGS, [worker(world, "a"), worker(world, "a")])
    assert isinstance(failed.value.__cause__, sup.BadChildSpec)
    assert failed.value.__cause__.field == "id"
    assert world.log == []
    with pytest.raises(sup.BadChildSpec):
        await sup.start_child(await node.start(sup.DynamicSupervisor), [worker(world, "a"), worker(world, "b")])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("strategy", "all_for_one"),
        ("intensity", -1),
        ("intensity", math.inf),
        ("period", 0),
        ("period", -1.0),
        ("period", math.inf),
        ("period", math.nan),
        ("auto_shutdown", "sometimes"),
    ],
)
def test_s11_bad_flags_are_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(sup.BadFlags) as refused:
        sup.SupervisorFlags(**{field: value})
    assert refused.value.field == field


def test_s11_flag_defaults() -> None:
    assert sup.SupervisorFlags() == sup.SupervisorFlags("one_for_one", 1, 5.0, "never")


@pytest.mark.parametrize(
    ("auto_shutdown", "restart"), [("never", "temporary"), ("never", "transient"), ("any_significant", "permanent")]
)
async def test_s12_significant_in_a_bad_combination_is_refused(
    node: sup.Node, world: World, auto_shutdown: Any, restart: Any
) -> None:
    flags = sup.SupervisorFlags(auto_shutdown=auto_shutdown)
    spec = worker(world, "a", restart=restart, significant=True)
    with pytest.raises(sup.StartFailed) as failed:
        await node.start(sup.Supervisor, flags, [spec])
    assert isinstance(failed.value.__cause__, sup.BadChildSpec)
    assert failed.value.__cause__.field == "significant"
    pid = await node.start(sup.Supervisor, flags)
    with pytest.raises(sup.BadChildSpec, match="bad combination"):
        await sup.start_child(pid, spec)
    assert world.log == []


async def test_s13_which_children_lists_newest_first(node: sup.Node, world: World) -> None:
    pid = await node.start(sup.Supervisor, FLAGS, [worker(world, "a"), sup.child(sup.Supervisor, id="sub")])
    added = await sup.start_child(pid, worker(world, "b", restart="transient"))
    await sup.terminate_child(pid, "a")
    b, sub, a = await sup.which_children(pid)
    assert b == sup.ChildInfo("b", added, "worker", "transient")
    assert (sub.id, sub.type) == ("sub", "supervisor")
    assert isinstance(sub.pid, sup.Pid)
    assert a == sup.ChildInfo("a", None, "worker", "permanent")
    assert await sup.which_child(pid, "b") == b
    with pytest.raises(sup.NotFound):
        await sup.which_child(pid, "unknown")


async def test_s14_count_children_is_right_at_every_step(node: sup.Node, world: World) -> None:
    pid = await node.start(sup.Supervisor, FLAGS, [worker(world, "a")])
    counts = [await sup.count_children(pid)]
    await sup.start_child(pid, sup.child(sup.Supervisor, id="sub"))
    counts.append(await sup.count_children(pid))
    await sup.terminate_child(pid, "a")
    counts.append(await sup.count_children(pid))
    await sup.restart_child(pid, "a")
    counts.append(await sup.count_children(pid))
    await sup.terminate_child(pid, "a")
    await sup.delete_child(pid, "a")
    counts.append(await sup.count_children(pid))
    assert [attrs.astuple(count) for count in counts] == [
        (1, 1, 0, 1),
        (2, 2, 1, 1),
        (2, 1, 1, 1),
        (2, 2, 1, 1),
        (1, 1, 1, 0),
    ]


async def test_s14_count_children_of_one_and_two_thousand(node: sup.Node) -> None:
    pid = await node.start(sup.DynamicSupervisor)
    for total in (1000, 2000):
        for _ in range(1000):
            await sup.start_child(pid, sup.child(wait_forever, restart="temporary"))
        assert await sup.count_children(pid) == sup.ChildCounts(total, total, 0, total)


async def test_s15_start_child_with_a_known_id(node: sup.Node, world: World) -> None:
    pid = await node.start(sup.Supervisor, FLAGS, [worker(world, "a")])
    running = (await pids(pid))["a"]
    with pytest.raises(sup.AlreadyStarted) as started:
        await sup.start_child(pid, worker(world, "a"))
    assert started.value.pid is running
    await sup.terminate_child(pid, "a")
    with pytest.raises(sup.AlreadyPresent):
        await sup.start_child(pid, worker(world, "a"))
    assert world.starts["a"] == 1


async def test_s16_terminate_child(node: sup.Node, world: World) -> None:
    pid = await node.start(sup.Supervisor, FLAGS, [worker(world, "a")])
    running = (await pids(pid))["a"]
    with pytest.raises(sup.NotFound):
        await sup.terminate_child(pid, running)
    await sup.terminate_child(pid, "a")
    assert running.exit_reason == sup.Shutdown()
    assert world.log[-1] == ("down", "a", sup.Shutdown())
    assert await pids(pid) == {"a": None}
    await sup.terminate_child(pid, "a")
    with pytest.raises(sup.NotFound):
        await sup.terminate_child(pid, "unknown")


async def test_s17_restart_child_and_delete_child_in_each_state(node: sup.Node, world: World) -> None:
    pid = await node.start(sup.Supervisor, FLAGS, [worker(world, "a")])
    first = (await pids(pid))["a"]
    with pytest.raises(sup.ChildRunning):
        await sup.restart_child(pid, "a")
    with pytest.raises(sup.ChildRunning):
        await sup.delete_child(pid, "a")
    world.hanging.add("a")
    await crash(first)
    assert await pids(pid) == {"a": sup.RESTARTING}
    with pytest.raises(sup.ChildRestarting):
        await sup.restart_child(pid, "a")
    with pytest.raises(sup.ChildRestarting):
        await sup.delete_child(pid, "a")
    world.hanging.clear()
    await sup.terminate_child(pid, "a")
    second = await sup.restart_child(pid, "a")
    assert second is not first
    assert (await pids(pid))["a"] is second
    await sup.terminate_child(pid, "a")
    await sup.delete_child(pid, "a")
    for command in (sup.restart_child, sup.delete_child):
        with pytest.raises(sup.NotFound):
            await command(pid, "a")


async def test_s18_start_information_reaches_the_caller(node: sup.Node) -> None:
    class Informing(sup.GenServer):
        async def init(self) -> Any:
            return sup.Started("extra")

    pid = await node.start(sup.Supervisor)
    assert (await sup.start_child(pid, sup.child(Informing))).start_info == "extra"
    await sup.terminate_child(pid, "Informing")
    by_hand = await sup.restart_child(pid, "Informing")
    assert by_hand.start_info == "extra"
    sup.exit(by_hand, "crash")
    await settle()
    assert (await pids(pid))["Informing"].alive, "restarted by itself, where nobody takes it"
    assert await sup.get_childspec(pid, "Informing") == sup.child(Informing)


async def test_s45_child_whose_name_is_taken_is_not_adopted(node: sup.Node, world: World) -> None:
    stranger = await node.start(Worker, world, "x", name="x")
    pid = await node.start(sup.Supervisor)
    with pytest.raises(sup.AlreadyStarted) as taken:
        await sup.start_child(pid, worker(world, "x", name="x"))
    assert taken.value.pid is stranger
    assert await pids(pid) == {}


@pytest.mark.parametrize("kind", [sup.Supervisor, sup.DynamicSupervisor])
async def test_s47_unknown_message_is_logged_and_dropped(
    node: sup.Node, world: World, caplog: pytest.LogCaptureFixture, kind: Any
) -> None:
    pid = await node.start(kind)
    await sup.start_child(pid, worker(world, "a"))
    sup.send(pid, "hello")
    sup.cast(pid, "hello")
    await settle()
    assert [record.getMessage().count("unexpected message 'hello'") for record in caplog.records] == [1, 1]
    with pytest.raises(TypeError, match="no answer"):
        await sup.call(pid, "hello")
    assert (await sup.count_children(pid)).active == 1


async def test_s48_reports_name_supervisor_context_reason_and_offender(
    node: sup.Node, world: World, reports: list[object]
) -> None:
    flags = sup.SupervisorFlags(intensity=1)
    pid = await node.start(sup.Supervisor, flags, [worker(world, "a"), worker(world, "b")])
    spec = await sup.get_childspec(pid, "a")
    world.failing.add("a")
    await crash((await pids(pid))["a"])
    assert not pid.alive
    seen = [report for report in reports if isinstance(report, sup.SupervisorReport)]
    assert [report.context for report in seen] == [
        "progress",
        "progress",
        "child_terminated",
        "start_error",
        "shutdown",
    ]
    for report in seen[2:]:
        assert report.supervisor is pid
        assert report.offender is spec
    assert isinstance(seen[2].reason, sup.Crashed)
    assert isinstance(seen[3].reason, sup.Crashed)
    assert seen[4].reason == "reached_max_restart_intensity"
    crashes = [report for report in reports if isinstance(report, sup.CrashReport)]
    assert len(crashes) == 1, "one crash is one crash report"
    long = attrs.evolve(seen[2], reason=["x" * 1000, [[[["deep"]]]]])
    assert "\n" not in long.one_line()
    assert len(long.one_line(depth=2)) < 300 < len(long.format())
    assert "deep" in long.format()
    assert "deep" not in long.format(depth=2)


async def test_s48_child_that_ends_wrongly_while_stopping_is_reported(
    node: sup.Node, world: World, reports: list[object]
) -> None:
    class Stubborn(Worker):
        async def terminate(self, reason: object) -> None:
            raise Broken("terminate")

    pid = await node.start(sup.Supervisor, FLAGS, [sup.child(Stubborn, world, "a", id="a")])
    await sup.stop(pid, sup.Shutdown())
    contexts = [report.context for report in reports if isinstance(report, sup.SupervisorReport)]
    assert contexts == ["progress", "shutdown_error"]


async def test_end_helper_gives_the_reason(node: sup.Node, world: World) -> None:
    pid = await node.start(Worker, world, "a")
    await end(pid, "why")
    assert pid.exit_reason == "why"
    await trio.lowlevel.checkpoint()
