"""Waits between restarts: what OTP does not have, off by default."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
from actors import World, crash, pids, worker
from hypothesis import given, settings
from hypothesis import strategies as st

import supervisors as sup
from supervisors.testing import settle

STEADY = sup.Backoff(initial=1, factor=2, maximum=8, jitter=0, reset_after=60)
KINDS = ["one_for_one", "one_for_all", "rest_for_one", "dynamic"]


async def start_two(
    node: sup.Node, world: World, kind: Any, backoff: Any = STEADY, own: Any = "inherit"
) -> sup.Pid[Any]:
    """A supervisor of children a and b."""
    specs = [worker(world, id, backoff=own) for id in "ab"]
    if kind != "dynamic":
        return await node.start(sup.Supervisor, sup.SupervisorFlags(kind, 20, 1000, backoff=backoff), specs)
    pid: Any = await node.start(sup.DynamicSupervisor, None, 20, 1000, backoff)
    for child in specs:
        await sup.start_child(pid, child)
    return pid


@settings(deadline=None)
@given(
    initial=st.floats(0.001, 10),
    factor=st.floats(1, 10),
    spread=st.floats(1, 100),
    jitter=st.floats(0, 1),
    failures=st.integers(0, 5000),
    draw=st.floats(0, 1, exclude_max=True),
)
def test_delay_grows_to_its_maximum_and_jitter_only_shortens_it(
    initial: float, factor: float, spread: float, jitter: float, failures: int, draw: float
) -> None:
    backoff = sup.Backoff(initial, factor, initial * spread, jitter)
    full = backoff.delay(failures, 0)
    assert initial <= full <= backoff.maximum
    assert full <= backoff.delay(failures + 1, 0)
    assert full * (1 - jitter) <= backoff.delay(failures, draw) <= full


def test_delays_are_powers_of_the_factor() -> None:
    assert [STEADY.delay(n, 0.5) for n in range(5)] == [1, 2, 4, 8, 8]
    assert sup.Backoff(1, 2, 8, jitter=0.5).delay(1, 0.5) == 1.5


def test_a_seed_makes_the_random_part_repeatable() -> None:
    draws = [[sup.Backoff(seed=seed).draw(place) for place in range(20)] for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0])) == 20
    assert sup.Backoff().draw(0) != sup.Backoff().draw(0)
    assert all(0 <= draw < 1 for series in draws for draw in series)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("initial", 0),
        ("initial", math.inf),
        ("initial", "soon"),
        ("factor", 0.5),
        ("factor", math.nan),
        ("maximum", 0.01),
        ("maximum", math.inf),
        ("jitter", -0.1),
        ("jitter", 1.1),
        ("reset_after", -1),
        ("reset_after", None),
        ("seed", 1.5),
        ("seed", True),
    ],
)
def test_each_bad_field_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(sup.BadFlags) as refused:
        sup.Backoff(**{field: value})
    assert refused.value.field == f"backoff.{field}"


def test_what_is_no_backoff_is_refused() -> None:
    with pytest.raises(sup.BadFlags) as flags:
        sup.SupervisorFlags(backoff=1.0)  # type: ignore[arg-type]
    assert flags.value.field == "backoff"
    with pytest.raises(sup.BadChildSpec) as spec:
        worker(World(), "a", backoff="none")
    assert spec.value.field == "backoff"


@pytest.mark.parametrize("kind", KINDS)
async def test_without_one_restarts_are_immediate(node: sup.Node, world: World, kind: str) -> None:
    pid = await start_two(node, world, kind, backoff=None)
    for _ in range(3):
        await crash((await pids(pid))["a"])
    assert trio.current_time() == 0
    assert (await pids(pid))["a"].alive


@pytest.mark.parametrize("kind", KINDS)
async def test_restarts_wait_longer_each_time_and_show_it(node: sup.Node, world: World, kind: str) -> None:
    pid = await start_two(node, world, kind)
    stopped_with_a = {"one_for_all": ["a", "b"], "rest_for_one": ["a", "b"]}.get(kind, ["a"])
    for delay in (1, 2, 4, 8, 8):
        before = await pids(pid)
        await crash(before["a"])
        crashed_at = trio.current_time()
        waiting = await pids(pid)
        assert [id for id in "ab" if waiting[id] is sup.RESTARTING] == stopped_with_a
        assert (await sup.count_children(pid)).active == 2 - len(stopped_with_a)
        await trio.sleep(delay - 0.01)
        assert (await pids(pid))["a"] is sup.RESTARTING
        await trio.sleep(0.02)
        after = await pids(pid)
        assert all(after[id].alive for id in "ab")
        assert trio.current_time() - crashed_at == pytest.approx(delay + 0.01)


@pytest.mark.parametrize("kind", KINDS)
async def test_failing_starts_wait_too_and_count_for_the_intensity(node: sup.Node, world: World, kind: Any) -> None:
    backoff = STEADY
    if kind == "dynamic":
        pid: Any = await node.start(sup.DynamicSupervisor, None, 3, 1000, backoff)
        first = await sup.start_child(pid, worker(world, "a"))
    else:
        pid = await node.start(
            sup.Supervisor, sup.SupervisorFlags(kind, 3, 1000, backoff=backoff), [worker(world, "a")]
        )
        first = (await pids(pid))["a"]
    world.failing.add("a")
    await crash(first)
    assert await sup.wait_down(pid) == sup.Shutdown()
    assert world.starts["a"] == 4
    assert trio.current_time() == pytest.approx(1 + 2 + 4)


@pytest.mark.parametrize("kind", KINDS)
async def test_child_that_was_up_long_enough_begins_again(node: sup.Node, world: World, kind: str) -> None:
    pid = await start_two(node, world, kind)
    for up_for, delay in ((0, 1), (59, 2), (60, 1), (61, 1), (0, 2)):
        await trio.sleep(up_for)
        await crash((await pids(pid))["a"])
        await trio.sleep(delay - 0.01)
        assert (await pids(pid))["a"] is sup.RESTARTING
        await trio.sleep(0.01)
        await settle()
        assert (await pids(pid))["a"].alive


@pytest.mark.parametrize("kind", KINDS)
async def test_a_child_s_own_overrides_the_supervisor_s(node: sup.Node, world: World, kind: str) -> None:
    own = sup.Backoff(initial=3, jitter=0)
    for backoff, spec, delay in ((None, own, 3), (STEADY, own, 3), (STEADY, None, 0)):
        pid = await start_two(node, World(), kind, backoff, spec)
        began = trio.current_time()
        child = (await pids(pid))["a"]
        await crash(child)
        while (await pids(pid))["a"] is sup.RESTARTING:
            await trio.sleep(0.25)
        assert trio.current_time() - began == pytest.approx(delay, abs=0.25)


@pytest.mark.parametrize("kind", KINDS)
async def test_terminate_child_cancels_the_wait(node: sup.Node, world: World, kind: str) -> None:
    pid = await start_two(node, world, kind)
    before = await pids(pid)
    await crash(before["a"])
    await sup.terminate_child(pid, before["a"] if kind == "dynamic" else "a")
    assert trio.current_time() == 0
    await trio.sleep(100)
    after = await pids(pid)
    assert after.get("a") is None
    assert after["b"].alive
    assert world.starts["a"] == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_shutdown_during_the_wait_is_prompt(node: sup.Node, world: World, kind: str) -> None:
    pid = await start_two(node, world, kind)
    await crash((await pids(pid))["a"])
    await sup.stop(pid, sup.Shutdown())
    assert trio.current_time() == 0
    await trio.sleep(100)
    assert world.starts == {"a": 1, "b": 1}


@pytest.mark.parametrize("kind", KINDS)
async def test_everything_answers_during_the_wait(node: sup.Node, world: World, kind: str) -> None:
    pid = await start_two(node, world, kind)
    await crash((await pids(pid))["a"])
    assert (await sup.start_child(pid, worker(world, "c"))).alive
    if kind != "dynamic":
        with pytest.raises(sup.AlreadyPresent):
            await sup.start_child(pid, worker(world, "a"))
        with pytest.raises(sup.ChildRestarting):
            await sup.restart_child(pid, "a")
        with pytest.raises(sup.ChildRestarting):
            await sup.delete_child(pid, "a")
    assert (await sup.count_children(pid)).specs == 3
    assert trio.current_time() == 0
    await trio.sleep(1.01)
    assert all(child.alive for child in (await pids(pid)).values())


async def test_child_that_was_terminated_and_restarted_by_hand_is_left_alone(node: sup.Node, world: World) -> None:
    pid = await start_two(node, world, "one_for_all")
    await crash((await pids(pid))["a"])
    await sup.terminate_child(pid, "a")
    by_hand = await sup.restart_child(pid, "a")
    await trio.sleep(2)
    after = await pids(pid)
    assert after["a"] is by_hand
    assert after["b"].alive, "the rest of its group comes back in its time"


async def test_waiting_group_joins_the_restart_of_a_larger_one(node: sup.Node, world: World) -> None:
    slow = sup.Backoff(initial=10, jitter=0)
    flags = sup.SupervisorFlags("rest_for_one", 20, 1000, backoff=STEADY)
    specs = [worker(world, "a"), worker(world, "b", backoff=slow), worker(world, "c")]
    pid = await node.start(sup.Supervisor, flags, specs)
    await crash((await pids(pid))["b"])
    await crash((await pids(pid))["a"])
    await trio.sleep(9.9)
    assert set((await pids(pid)).values()) == {sup.RESTARTING}, "b has to wait, and c depends on it"
    world.clear()
    await trio.sleep(0.2)
    assert world.ups() == ["a", "b", "c"]


async def test_restarts_of_independent_children_wait_side_by_side(node: sup.Node, world: World) -> None:
    pid = await start_two(node, world, "one_for_one")
    await crash((await pids(pid))["a"])
    await trio.sleep(0.5)
    await crash((await pids(pid))["b"])
    await trio.sleep(0.6)
    waiting = await pids(pid)
    assert waiting["a"].alive
    assert waiting["b"] is sup.RESTARTING
    await trio.sleep(0.5)
    assert (await pids(pid))["b"].alive


async def test_max_children_counts_those_that_wait(node: sup.Node, world: World) -> None:
    pid: Any = await node.start(sup.DynamicSupervisor, 1, 5, 10, STEADY)
    await crash(await sup.start_child(pid, worker(world, "a")))
    with pytest.raises(sup.MaxChildren):
        await sup.start_child(pid, worker(world, "b"))


async def test_restarting_child_that_waits_counts_as_active_for_auto_shutdown(node: sup.Node, world: World) -> None:
    specs = [worker(world, id, restart="transient", significant=True) for id in "ab"]
    flags = sup.SupervisorFlags(intensity=5, auto_shutdown="all_significant", backoff=STEADY)
    pid = await node.start(sup.Supervisor, flags, specs)
    before = await pids(pid)
    await crash(before["a"])
    sup.cast(before["b"], sup.Exit(sup.Normal()))
    await trio.sleep(5)
    assert pid.alive
    assert (await pids(pid))["a"].alive
