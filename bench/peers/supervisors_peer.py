"""One round of the workloads with `supervisors`; prints the figures as JSON. Run by `bench/supervisors.py`."""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import trio

import supervisors as sup

clock = time.perf_counter if os.environ.get("BENCH_CLOCK") == "wall" else time.process_time
CALLERS = 100


class Echo(sup.GenServer):
    async def handle_call(self, request: Any, from_: sup.From) -> sup.Reply:
        return sup.Reply(request)

    async def handle_cast(self, message: Any) -> None:
        pass


class Idle(sup.GenServer):
    pass


class Broken(Exception):
    pass


async def nothing() -> None:
    pass


async def idle() -> None:
    await trio.sleep_forever()


async def in_process(node: sup.Node, body: Callable[[], Awaitable[float]]) -> float:
    """What ``body`` returns when it runs as a process."""
    result: list[float] = []

    async def run() -> None:
        result.append(await body())

    await sup.wait_down(node.spawn(run))
    return result[0]


async def calls(server: sup.Pid[Echo], count: int) -> float:
    """Seconds for one call after the other."""
    started = clock()
    for _ in range(count):
        await sup.call(server, 1)
    return clock() - started


async def measure_calls(node: sup.Node, count: int) -> float:
    server = await node.start(Echo)
    await calls(server, count // 10)
    return count / await in_process(node, lambda: calls(server, count))


async def measure_many_callers(node: sup.Node, count: int) -> float:
    """Calls a second when many processes call one server at the same time."""
    server = await node.start(Echo)

    async def caller() -> None:
        for _ in range(count // CALLERS):
            await sup.call(server, 1)

    started = clock()
    callers = [node.spawn(caller) for _ in range(CALLERS)]
    for pid in callers:
        await sup.wait_down(pid)
    return count / (clock() - started)


async def measure_casts(node: sup.Node, count: int) -> float:
    server = await node.start(Echo)
    started = clock()
    for _ in range(count):
        sup.cast(server, 1)
    await sup.call(server, 0)
    return count / (clock() - started)


async def measure_spawns(node: sup.Node, count: int) -> float:
    started = clock()
    for _ in range(count):
        await sup.wait_down(node.spawn(nothing))
    return count / (clock() - started)


async def measure_starts(node: sup.Node, count: int) -> float:
    started = clock()
    for _ in range(count):
        await sup.stop(await node.start(Echo))
    return count / (clock() - started)


async def measure_restarts(node: sup.Node, count: int) -> float:
    """Crashes of a supervised process, each with its crash report and its supervisor's report."""
    left, done = count, trio.Event()
    reports = 0

    async def crasher() -> None:
        nonlocal left
        if left == 0:
            done.set()
            await trio.sleep_forever()
        left -= 1
        raise Broken

    def hear(report: object) -> None:
        nonlocal reports
        reports += isinstance(report, sup.CrashReport)

    stop_hearing = sup.on_report(node, hear)
    started = clock()
    await node.start(sup.Supervisor, sup.SupervisorFlags(intensity=count), [sup.child(crasher)])
    await done.wait()
    seconds = clock() - started
    stop_hearing()
    assert reports == count
    return count / seconds


async def measure_memory(node: sup.Node, count: int) -> float:
    """Bytes of an idle server, mailbox and task included, by tracemalloc."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(count):
        await node.start(Idle)
    gc.collect()
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return used / count


async def measure_stop(node: sup.Node, count: int, *, dynamic: bool) -> float:
    """Seconds for the stop of a supervisor with ``count`` servers under it."""
    if dynamic:
        supervisor = await node.start(sup.DynamicSupervisor)
        for _ in range(count):
            await sup.start_child(supervisor, sup.child(Idle))
    else:
        specs = [sup.child(Idle, id=n) for n in range(count)]
        supervisor = await node.start(sup.Supervisor, sup.SupervisorFlags(), specs)
    gc.collect()
    started = clock()
    await sup.stop(supervisor, sup.Shutdown())
    return clock() - started


async def measure_beside(node: sup.Node, processes: int, count: int) -> float:
    """Calls a second beside that many idle processes."""
    for _ in range(processes):
        node.spawn(idle)
    await trio.lowlevel.checkpoint()
    return await measure_calls(node, count)


async def measure_queued(node: sup.Node, queued: int, count: int) -> float:
    """Calls a second of a caller with that many messages in its own mailbox."""
    server = await node.start(Echo)

    async def body() -> float:
        for n in range(queued):
            sup.send(sup.self(), n)
        await calls(server, count // 10)
        return await calls(server, count)

    return count / await in_process(node, body)


async def measure(sizes: dict[str, int]) -> dict[str, float]:
    found: dict[str, float] = {}

    async def fresh(name: str, measurement: Callable[..., Awaitable[float]], *args: int, **kwargs: bool) -> None:
        gc.collect()
        async with sup.open_node() as node:
            found[name] = await measurement(node, *args, **kwargs)

    await fresh("calls", measure_calls, sizes["calls"])
    await fresh("calls_of_many", measure_many_callers, sizes["calls"])
    await fresh("casts", measure_casts, sizes["casts"])
    await fresh("spawns", measure_spawns, sizes["spawns"])
    await fresh("starts", measure_starts, sizes["starts"])
    await fresh("restarts", measure_restarts, sizes["restarts"])
    await fresh("memory", measure_memory, sizes["memory"])
    await fresh("stop_dynamic", measure_stop, sizes["children"], dynamic=True)
    await fresh("stop_static", measure_stop, sizes["children"], dynamic=False)
    for processes in (10, 1_000, sizes["processes"]):
        name = "calls_beside_many" if processes == sizes["processes"] else f"calls_beside_{processes}"
        await fresh(name, measure_beside, processes, sizes["calls"] // 2)
    await fresh("calls_queued", measure_queued, sizes["queued"], sizes["calls"] // 2)
    return found


if __name__ == "__main__":
    logging.getLogger("supervisors").setLevel(logging.CRITICAL + 1)  # reports go to the hook alone
    json.dump(trio.run(measure, json.loads(sys.argv[1])), sys.stdout)
