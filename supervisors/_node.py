"""The node: owner of the outermost nursery. What was started inside it has ended when its block has."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio

from ._behaviour import prepare, start_in
from ._call_timeouts import CallTimers
from ._errors import NodeStopped
from ._pid import AnyPid, Pid, current_node_var, current_process
from ._process import kill, launch, request_shutdown, watch_exit
from ._process_groups import ProcessGroups
from ._reasons import SHUTDOWN, fatal_part
from ._registry import Registry, Via
from ._reports import Report, logger

T = TypeVar("T")

WORKER_SHUTDOWN_SECONDS = 5.0
"""What a process started by the node itself gets to end by itself; a supervisor gets all the time it needs."""

KILL_GRACE_SECONDS = 1.0
"""How long after a kill a process may live before it is reported as unkillable."""


class Node:
    """A world of processes. Made by `open_node`; its methods work while the block of the node is open."""

    def __init__(self, label: str = "node") -> None:
        self.label = label
        self.registry = Registry()
        self.groups = ProcessGroups()
        self.report_hooks: list[Callable[[Report], None]] = []
        self.nursery: trio.Nursery | None = None
        self.call_timers = CallTimers()
        self._numbers = 0
        self._processes: dict[AnyPid, None] = {}

    def next_number(self) -> int:
        """The number of the next pid."""
        self._numbers += 1
        return self._numbers

    def __repr__(self) -> str:
        return f"<Node {self.label}: {len(self._processes)} processes of its own>"

    @property
    def processes(self) -> tuple[AnyPid, ...]:
        """The live processes the node stops itself, oldest first: those no supervisor has."""
        return tuple(self._processes)

    async def start(
        self,
        server: type[T],
        *args: Any,
        name: Hashable | Via | None = None,
        label: str | None = None,
        timeout: float = math.inf,
        **kwargs: Any,
    ) -> Pid[T]:
        """Start a behaviour and wait until it is ready; its arguments go to the class.

        ``name`` is a key of the node's registry, or a `Via`. A checkpoint; cancelled or out of time, the new process
        is killed and its name is free. Returns IGNORE when init did.

        Raises AlreadyStarted, StartFailed (with the exception of init as its cause), StartTimeout, NodeStopped.
        """
        return await start_in(self.nursery, self, server, args, kwargs, name=name, label=label, timeout=timeout)

    def spawn(
        self,
        function: Callable[..., Awaitable[object]],
        *args: object,
        label: str | None = None,
        name: Hashable | Via | None = None,
    ) -> Pid[Any]:
        """Start ``await function(*args)`` as a plain process. Synchronous; NodeStopped when the node is not open."""
        if self.nursery is None:
            raise NodeStopped(self.label)
        pid, body, body_args = prepare(self, function, args, {}, parent=current_process(), name=name, label=label)
        self.adopt(pid)
        launch(self.nursery, pid, body, body_args)
        return pid

    def adopt(self, pid: AnyPid) -> None:
        """Have the node stop this process when its block ends."""
        self._processes[pid] = None
        watch_exit(pid, self._forget)

    def _forget(self, pid: AnyPid) -> None:
        self._processes.pop(pid, None)

    async def _stop_all(self) -> None:
        """Stop what runs, newest first, each ended before the next is told; also what is started meanwhile."""
        given_up: set[AnyPid] = set()
        while True:
            left = [pid for pid in self._processes if pid not in given_up]
            if not left:
                return
            pid = left[-1]
            seconds = math.inf if pid.is_supervisor else WORKER_SHUTDOWN_SECONDS
            if not await stop_child(pid, seconds):
                given_up.add(pid)
                logger.log(logging.ERROR, "unkillable process %r still runs:\n%s", pid, stack_of(pid))

    def _kill_all(self) -> None:
        for pid in reversed(self.processes):
            kill(pid)


def stack_of(pid: AnyPid) -> str:
    """Where the task of a process is, innermost frame last."""
    task = pid._task
    if task is None:
        return "  (no task)"
    return "".join(f"  {f.f_code.co_filename}:{line} in {f.f_code.co_name}\n" for f, line in task.iter_await_frames())


async def stop_child(pid: AnyPid, seconds: float) -> bool:
    """Ask, wait ``seconds``, kill, wait a moment longer; False when the process has still not ended."""
    ended = trio.Event()
    watch_exit(pid, lambda _: ended.set())
    request_shutdown(pid, SHUTDOWN, trio.current_time() + seconds)
    with trio.move_on_after(seconds):
        await ended.wait()
    if pid.alive:
        kill(pid)
        with trio.move_on_after(KILL_GRACE_SECONDS):
            await ended.wait()
    return not pid.alive


@asynccontextmanager
async def open_node(label: str = "node") -> AsyncIterator[Node]:
    """Open a node; when the block ends, by itself, by an exception, by cancellation or by Ctrl-C, everything started
    inside is stopped in reverse order before the block is left.

    An exception of the block leaves it as it is, not wrapped in a group. A second Ctrl-C during the stop kills what
    is left.
    """
    node = Node(label)
    before = current_node_var.get()
    failure: BaseException | None = None
    try:
        with trio.CancelScope() as way_out:
            async with node.call_timers.running(), trio.open_nursery() as nursery:
                node.nursery = nursery
                current_node_var.set(node)
                try:
                    yield node
                except BaseException as exc:
                    # a Cancelled of this very nursery has to end in it; everything else leaves the block unwrapped
                    if nursery.cancel_scope.cancel_called or isinstance(exc, GeneratorExit):
                        raise
                    failure = exc
                finally:
                    # no cancellation from outside may end the wait for our processes, nor hide what the block raised
                    way_out.shield = True
                    try:
                        with trio.CancelScope(shield=True):
                            await node._stop_all()
                    except BaseException:
                        node._kill_all()
                        raise
    except BaseExceptionGroup as group:
        leaf = fatal_part(group)
        while isinstance(leaf, BaseExceptionGroup):
            leaf = leaf.exceptions[0]  # one Ctrl-C is enough
        if leaf is None:
            raise
        failure = leaf
    finally:
        node.nursery = None
        current_node_var.set(before)
    if failure is not None:
        raise failure
