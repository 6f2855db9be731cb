"""Actors that the tests steer from outside."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

import supervisors as sup
from supervisors.testing import settle


class Broken(Exception):
    """What a worker raises when it is told to crash."""


class World:
    """What happened, and what shall happen, to the workers named by id."""

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.failing: set[str] = set()
        self.failing_at: dict[str, set[int]] = {}
        self.starts: dict[str, int] = {}
        self.ignoring: set[str] = set()
        self.hanging: set[str] = set()
        self.stop_seconds: dict[str, float] = {}

    def ups(self) -> list[str]:
        return [entry[1] for entry in self.log if entry[0] == "up"]

    def downs(self) -> list[str]:
        return [entry[1] for entry in self.log if entry[0] == "down"]

    def clear(self) -> None:
        self.log.clear()


class Worker(sup.GenServer):
    def __init__(self, world: World, id: str) -> None:
        self.world = world
        self.id = id

    async def init(self) -> Any:
        world = self.world
        count = world.starts[self.id] = world.starts.get(self.id, 0) + 1
        world.log.append(("try", self.id))
        if self.id in world.hanging:
            await trio.sleep_forever()
        if self.id in world.failing or count in world.failing_at.get(self.id, ()):
            raise Broken(self.id)
        if self.id in world.ignoring:
            return sup.IGNORE
        world.log.append(("up", self.id))
        return None

    async def handle_call(self, request: Any, from_: sup.From) -> Any:
        if request == "id":
            return sup.Reply(self.id)
        return sup.Reply(request)

    async def handle_cast(self, message: Any) -> Any:
        if message == "crash":
            raise Broken(self.id)
        if isinstance(message, sup.Exit):
            return sup.Stop(message.reason)
        return None

    async def terminate(self, reason: object) -> None:
        await trio.sleep(self.world.stop_seconds.get(self.id, 0))
        self.world.log.append(("down", self.id, reason))


def worker(world: World, id: str, **spec: Any) -> sup.ChildSpec:
    return sup.ChildSpec(id=id, start=(Worker, (world, id), {}), **spec)


class Defiant:
    """A process that catches its cancellation and goes on until it is released; later ones are well-behaved."""

    def __init__(self) -> None:
        self.released = trio.Event()
        self.running = trio.Event()

    async def run(self) -> None:
        self.running.set()
        if self.released.is_set():
            await trio.sleep_forever()
        while not self.released.is_set():
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                with trio.CancelScope(shield=True):
                    await self.released.wait()


class Echo(sup.GenServer):
    async def handle_call(self, request: Any, from_: sup.From) -> Any:
        if request == "crash":
            raise Broken("echo")
        return sup.Reply(request)

    async def handle_cast(self, message: Any) -> Any:
        if message == "crash":
            raise Broken("echo")
        return None


async def crash(pid: sup.Pid[Any]) -> None:
    """Crash a worker and wait until everything that follows from it has happened."""
    sup.cast(pid, "crash")
    await settle()


async def end(pid: sup.Pid[Any], reason: object) -> None:
    """End a worker by itself with ``reason``."""
    sup.cast(pid, sup.Exit(reason))
    await settle()


async def pids(supervisor: sup.Target) -> dict[Any, Any]:
    """id → pid of the children."""
    return {info.id: info.pid for info in await sup.which_children(supervisor)}


async def in_process(node: sup.Node, body: Callable[[], Awaitable[Any]]) -> Any:
    """Run ``body`` as a process; its value, or what it raised."""
    outcome: list[Any] = []

    async def run() -> None:
        try:
            outcome.append((True, await body()))
        except Exception as exc:
            outcome.append((False, exc))

    reason = await sup.wait_down(node.spawn(run, label="in_process"))
    assert outcome, f"the process ended with {reason!r}"
    good, value = outcome[0]
    if not good:
        raise value
    return value


async def wait_forever() -> None:
    await trio.sleep_forever()
