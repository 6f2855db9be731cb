"""The supervisor under other task orders, and with a fault in each of its own lines."""

from __future__ import annotations

import gc
import inspect
import linecache
import math
import random
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import pytest
import trio
import trio._core._run as trio_run
from actors import World, pids, worker

import supervisors as sup
from supervisors.processes.process import kill
from supervisors.supervision import dynamic_supervisor as dynamic_module
from supervisors.supervision import supervision_loop as loop_module
from supervisors.supervision import supervisor as static_module
from supervisors.testing import settle, virtual_clock


@contextmanager
def scheduling_seed(seed: int) -> Iterator[None]:
    """Run tasks that are ready at the same time in an order given by ``seed``."""
    before = trio_run._ALLOW_DETERMINISTIC_SCHEDULING, trio_run._r
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING, trio_run._r = True, random.Random(seed)
    try:
        yield
    finally:
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING, trio_run._r = before


async def crashing_at_random(strategy: Any, seed: int) -> None:
    """Children that crash at any moment, one of them sometimes in init, with commands in between."""
    dice = random.Random(seed)
    world = World()
    world.stop_seconds = {"b": 0.5}
    ids = "abcd"
    for id in ids:
        world.failing_at[id] = {dice.randint(2, 4) for _ in range(2)}
    async with sup.open_node() as node:
        specs = [worker(world, id, restart=dice.choice(["permanent", "transient"])) for id in ids]
        pid = await node.start(sup.Supervisor, sup.SupervisorFlags(strategy, 1000, 10), specs)
        for _ in range(6):
            for id, child in (await pids(pid)).items():
                if isinstance(child, sup.Pid) and dice.random() < 0.5:
                    sup.cast(child, dice.choice(["crash", sup.Exit("x")]))
                if dice.random() < 0.2:
                    await sup.terminate_child(pid, id)
            await trio.sleep(dice.random())
        await trio.sleep(10)
        world.failing_at.clear()
        for id in ids:
            with trio.move_on_after(5) as scope:
                try:
                    await sup.restart_child(pid, id)
                except sup.ChildRunning:
                    pass
            assert not scope.cancelled_caught
        children = await pids(pid)
        assert list(children) == list(reversed(ids)), "nobody is lost, nobody twice, in order"
        assert all(isinstance(child, sup.Pid) and child.alive for child in children.values())
        world.clear()
        await sup.stop(pid, sup.Shutdown())
        assert world.downs() == list(reversed(ids))
        assert node.processes == ()


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
def test_every_task_order_gives_the_same_supervisor(strategy: Any) -> None:
    for seed in range(40):
        with scheduling_seed(seed):
            trio.run(crashing_at_random, strategy, seed, clock=virtual_clock())


async def attempt(command: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """The command's result, or None when it is refused, or a fault on the other side made it fail."""
    try:
        with trio.move_on_after(50):
            return await command(*args)
    except (sup.SupervisorsError, TypeError):
        return None


async def outlive_a_kill() -> None:
    """A process that ends three seconds after it is told to, whatever becomes of it."""
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(3)


async def start_supervisor(
    node: sup.Node, kind: str, backoff: sup.Backoff | None, specs: list[sup.ChildSpec]
) -> sup.Pid[Any] | None:
    if kind != "dynamic":
        flags = sup.SupervisorFlags(kind, 5, auto_shutdown="any_significant", backoff=backoff)  # type: ignore[arg-type]
        started: sup.Pid[Any] | None = await attempt(node.start, sup.Supervisor, flags, specs)
        return started
    pid: sup.Pid[Any] | None = await attempt(node.start, sup.DynamicSupervisor, None, 5, 5.0, backoff)
    for spec in specs if pid is not None else ():
        await attempt(sup.start_child, pid, spec)
    return pid


async def children_of(pid: sup.Pid[Any]) -> dict[Any, sup.Pid[Any]]:
    infos = await attempt(sup.which_children, pid) or ()
    return {info.id: info.pid for info in infos if isinstance(info.pid, sup.Pid)}


async def one_life(kind: str, backoff: sup.Backoff | None = None) -> None:
    """A life that runs through most lines of a supervisor; what fails on the way fails."""
    world = World()
    world.failing_at["a"] = {2}
    world.stop_seconds = {"slow": 10}
    specs = [worker(world, "a"), worker(world, "b"), worker(world, "slow", shutdown=1)]
    async with sup.open_node(stall_seconds=math.inf) as node:
        pid = await start_supervisor(node, kind, backoff, specs)
        if pid is None:
            return
        children = await children_of(pid)
        seen = list(children.values())
        for id, reason in (("b", "crash"), ("a", "crash"), ("slow", sup.Exit("x"))):
            if id in children:
                sup.cast(children[id], reason)
                await settle()
        await trio.sleep(0 if backoff is None else 2)
        new = await attempt(sup.start_child, pid, worker(world, "new", restart="temporary"))
        await attempt(sup.terminate_child, pid, new if kind == "dynamic" else "new")
        await attempt(sup.terminate_child, pid, "a")
        await attempt(sup.restart_child, pid, "a")
        await attempt(sup.get_childspec, pid, "a")
        await attempt(sup.count_children, pid)
        await stop_and_look(pid, [*seen, *(await children_of(pid)).values()])


async def stop_and_look(pid: sup.Pid[Any], seen: list[sup.Pid[Any]]) -> None:
    """End a life: with the supervisor no child is left."""
    await attempt(sup.stop, pid, sup.Shutdown())
    await settle()
    if not pid.alive:
        assert not [child for child in seen if child.alive]


async def life_with_backoff(kind: str) -> None:
    await one_life(kind, sup.Backoff(seed=1))


async def awkward_life(kind: str) -> None:
    """Commands that are refused or come in the middle of something, children that resist, hang or are not wanted."""
    world = World()
    world.failing = {"failing"}
    world.ignoring = {"ignoring"}
    async with sup.open_node(stall_seconds=math.inf) as node, trio.open_nursery() as asking:
        specs = [worker(world, "a"), sup.child(outlive_a_kill, id="resisting", shutdown=0.5), worker(world, "b")]
        pid = await start_supervisor(node, kind, sup.Backoff(initial=0.25, seed=1), specs)
        if pid is None:
            return
        children = await children_of(pid)
        seen = list(children.values())

        def named(id: str) -> Any:
            return children.get(id) if kind == "dynamic" else id

        taken = await attempt(node.start, sup.GenServer)
        node.registry.register("taken", taken)
        brutal = sup.child(outlive_a_kill, id="brutal", shutdown=sup.BRUTAL_KILL, restart="temporary")
        brief = worker(world, "brief", restart="temporary")
        for spec in (
            *specs[:1],
            worker(world, "ignoring", restart="temporary"),
            worker(world, "failing"),
            sup.child(sup.GenServer, name="taken"),
            brutal,
            brief,
        ):
            child = await attempt(sup.start_child, pid, spec)
            if child is not None:
                children[spec.id] = child
        seen += children.values()
        for command in (sup.which_child, sup.terminate_child, sup.restart_child, sup.delete_child):
            await attempt(command, pid, "nobody")
        await attempt(sup.restart_child, pid, "a")
        await attempt(sup.get_state, pid)
        await attempt(sup.get_status, pid)
        await attempt(sup.replace_state, pid, list)
        await attempt(sup.call, pid, "what?")
        sup.send(pid, "what?")
        asking.start_soon(attempt, sup.terminate_child, pid, named("brutal"))
        await trio.sleep(0.1)
        for id in ("brief", "a"):
            if id in children:
                sup.cast(children[id], "crash")
        for _ in range(8):  # while others are being stopped, or wait for their restart
            await trio.sleep(0.2)
            for command in (sup.restart_child, sup.delete_child, sup.which_child):
                asking.start_soon(attempt, command, pid, named("b"))
            asking.start_soon(attempt, sup.start_child, pid, specs[2])
        asking.start_soon(attempt, sup.terminate_child, pid, named("resisting"))
        await trio.sleep(5)
        world.hanging = {"b"}
        children |= await children_of(pid)
        for id in ("b", "a"):
            if id in children:
                sup.cast(children[id], "crash")
                await trio.sleep(1)
        asking.start_soon(attempt, sup.terminate_child, pid, named("b"))
        await trio.sleep(1)
        significant = worker(world, "significant", restart="temporary", significant=kind != "dynamic")
        child = await attempt(sup.start_child, pid, significant)
        world.hanging = {"hangs"}
        asking.start_soon(attempt, sup.start_child, pid, worker(world, "hangs"))
        await trio.sleep(1)
        for command in (sup.terminate_child, sup.delete_child):
            asking.start_soon(attempt, command, pid, named("a"))
        if isinstance(child, sup.Pid):
            sup.cast(child, sup.Exit(sup.Normal()))
        await trio.sleep(1)
        await stop_and_look(pid, [*seen, *children_of_loop(pid)])


def children_of_loop(pid: sup.Pid[Any]) -> list[sup.Pid[Any]]:
    return [info.pid for info in sup.tree(pid).walk() if info.pid not in (None, pid)] if pid.alive else []


Life = Callable[[str], Awaitable[None]]


async def watched(life: Life, kind: str) -> None:
    """A life, and a failure instead of a hang."""
    ended = trio.Event()

    async def live() -> None:
        try:
            await life(kind)
        except* Injected:
            pass  # the fault was in the end of a child: the node has stopped in good order
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(live)
        with trio.move_on_after(10_000):
            await ended.wait()
        if not ended.is_set():
            left = [thing for thing in gc.get_objects() if isinstance(thing, sup.Pid) and thing.alive]
            for pid in left:
                kill(pid)
            raise AssertionError(f"hung, with {left} alive")


class Injected(Exception):
    """The fault."""


MODULES = (static_module, loop_module, dynamic_module)
FILES = {module.__file__ for module in MODULES}


def lines_run(life: Life, kind: str, fault: tuple[str, int] | None) -> list[tuple[str, int]]:
    """Live with a fault where the line runs first; the lines that ran, in order."""
    seen: dict[tuple[str, int], None] = {}
    armed = [fault]

    def trace(frame: FrameType, event: str, _: object) -> Any:
        code: CodeType = frame.f_code
        if code.co_filename not in FILES:
            return None
        if event == "line":
            place = (code.co_filename, frame.f_lineno)
            seen[place] = None
            if place == armed[0]:
                armed[0] = None
                raise Injected(place)
        return trace

    before = sys.gettrace()  # a measurement of coverage, for one
    sys.settrace(trace)
    try:
        with scheduling_seed(1):
            trio.run(watched, life, kind, clock=virtual_clock())
    finally:
        sys.settrace(before)
    return list(seen)


@pytest.mark.parametrize("kind", ["rest_for_one", "dynamic"])
def test_m02_a_fault_in_any_line_of_the_supervisor_leaves_no_child_and_hangs_nothing(kind: str) -> None:
    last_resort = inspect.getsourcelines(loop_module.SupervisionLoop.clear_away)
    tried: set[tuple[str, int]] = set()
    for life in (one_life, life_with_backoff, awkward_life):
        places = lines_run(life, kind, None)
        assert len(places) > 150
        for file, line in places:
            # python cannot raise in a bare `try:`, and behind the last resort there is none
            if linecache.getline(file, line).strip() in ("try:", "await self.clear_away()"):
                continue
            if file == loop_module.__file__ and 0 <= line - last_resort[1] < len(last_resort[0]):
                continue
            if (file, line) not in tried:
                tried.add((file, line))
                lines_run(life, kind, (file, line))


class AtStep(trio.abc.Instrument):
    """Does something before the ``step``-th step of any task."""

    def __init__(self, step: int, action: Callable[[], None]) -> None:
        self.step = step
        self.action = action

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.step -= 1
        if self.step == 0:
            self.action()


async def disturbed_life(kind: str, how: str, step: int) -> bool:
    """A start, a crash, a group restart and an added child, disturbed at one step; False when it ended before."""
    world = World()
    world.failing_at["b"] = {2}
    world.stop_seconds = {"a": 0.5}
    specs = [worker(world, id) for id in "abc"]
    supervisor: list[sup.Pid[Any]] = []

    def disturb() -> None:
        if how == "cancel":
            scope.cancel()
        elif supervisor:
            sup.exit(supervisor[0], sup.Killed() if how == "kill" else sup.Shutdown())

    instrument = AtStep(step, disturb)
    trio.lowlevel.add_instrument(instrument)
    with trio.CancelScope() as scope:
        async with sup.open_node() as node:
            try:
                if kind == "dynamic":
                    supervisor.append(await node.start(sup.DynamicSupervisor, None, 5))
                    for spec in specs:
                        await sup.start_child(supervisor[0], spec)
                else:
                    starting = sup.child(sup.Supervisor, sup.SupervisorFlags("one_for_all", 5), specs, id="sub")
                    root = await node.start(sup.Supervisor)
                    supervisor.append(await sup.start_child(root, starting))
                for info in await sup.which_children(supervisor[0]):
                    if info.id == "b" and isinstance(info.pid, sup.Pid):
                        sup.cast(info.pid, "crash")
                await sup.start_child(supervisor[0], worker(world, "new"))
                await sup.stop(supervisor[0], sup.Shutdown())
            except sup.SupervisorsError:
                assert how != "cancel"
    reached = instrument.step <= 0
    assert node.processes == ()
    assert supervisor == [] or not supervisor[0].alive
    if how == "cancel":
        assert sorted(world.ups()) == sorted(world.downs()), "each that came up went down"
    return reached


@pytest.mark.parametrize("kind", ["static", "dynamic"])
@pytest.mark.parametrize("how", ["cancel", "kill", "exit"])
def test_cancelling_or_killing_at_any_step_leaves_nothing_and_hangs_nothing(kind: str, how: str) -> None:
    step = 1
    with scheduling_seed(7):
        while trio.run(disturbed_life, kind, how, step, clock=virtual_clock()):
            step += 1
    assert step > 20
