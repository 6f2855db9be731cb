"""The node: owner of the outermost nursery. What was started inside it has ended when its block has."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

import trio

from supervisors.errors import NodeStopped
from supervisors.names.process_groups import ProcessGroups
from supervisors.names.registry import Registry, Via
from supervisors.processes.call_timeouts import CallTimers
from supervisors.processes.pid import AnyPid, Pid, current_node_var, current_process
from supervisors.processes.process import kill, launch, request_shutdown, watch_exit
from supervisors.processes.reports import Report, logger
from supervisors.reasons import SHUTDOWN, fatal_part, is_interrupt
from supervisors.servers.behaviour import prepare, start_in

from .stall_watch import STALL_SECONDS, stall_watch

T = TypeVar("T")

WORKER_SHUTDOWN_SECONDS = 5.0
"""What a process started by the node itself gets to end by itself; a supervisor gets all the time it needs."""

INTERRUPTED = 130
"""Exit code of a program that Ctrl-C ended: 128 and the number of SIGINT."""

KILL_GRACE_SECONDS = 1.0
"""How long after a kill a process may live before it is reported as unkillable."""


class Node:
    """A world of processes. Made by `open_node`; its methods work while the block of the node is open."""

    def __init__(self, label: str = "node", stop_seconds: float = math.inf) -> None:
        self.label = label
        self.stop_seconds = stop_seconds
        self.stopping = False
        """True from the end of the block on."""
        self.halts = False
        """Whether the interpreter is ended when a process cannot be; see `run`."""
        self.registry = Registry()
        self.groups = ProcessGroups()
        self.report_hooks: list[Callable[[Report], None]] = []
        self.nursery: trio.Nursery | None = None
        self.call_timers = CallTimers()
        self._numbers = 0
        self._processes: dict[AnyPid, None] = {}
        self._failure: BaseException | None = None
        self._stop_by = math.inf

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

    def end(self, failure: BaseException) -> None:
        """Have the block cancelled, everything stopped in good order, and then ``failure`` raised. Synchronous."""
        if self.nursery is not None and self._failure is None and not self.stopping:
            self._failure = failure
            self.nursery.cancel_scope.cancel()

    async def _stop(self, interrupted: bool) -> BaseException | None:
        """Stop everything; what is to be raised then. Protected from Ctrl-C but at its checkpoints.

        The first Ctrl-C, which may be the reason of the stop, lets it go on; the next brings its deadline forward.
        """
        self.stopping = True
        self._stop_by = trio.current_time() + self.stop_seconds
        while True:
            try:
                with trio.CancelScope(shield=True):
                    await self._stop_all()
                return self._failure
            except KeyboardInterrupt as exc:
                if interrupted:
                    self._stop_by = trio.current_time()
                interrupted = True
                self._failure = exc
            except BaseException:
                self._kill_all()
                raise

    async def _stop_all(self) -> None:
        """Stop what runs, newest first, each ended before the next is told; also what is started meanwhile."""
        given_up: set[AnyPid] = set()
        while True:
            now = trio.current_time()
            if now >= self._stop_by:
                self._kill_all()
            pid = next((pid for pid in reversed(self._processes) if pid not in given_up), None)
            if pid is None:
                break
            seconds = math.inf if pid.is_supervisor else WORKER_SHUTDOWN_SECONDS
            if not await stop_child(pid, min(seconds, max(0.0, self._stop_by - now))):
                given_up.add(pid)
                logger.log(logging.ERROR, "unkillable process %r still runs:\n%s", pid, stack_of(pid))
        if given_up and self.halts:
            await self._halt(given_up)

    async def _halt(self, left: set[AnyPid]) -> None:
        """Give what outlives its kill until the deadline, and then end the interpreter."""
        ended = trio.Event()
        for pid in left:
            watch_exit(pid, lambda _: ended.set() if not any(pid.alive for pid in left) else None)
        with trio.move_on_at(self._stop_by):
            await ended.wait()
            return
        interrupted = isinstance(self._failure, KeyboardInterrupt)
        logger.critical("node %s is halted, as %s cannot be ended", self.label, ", ".join(map(repr, left)))
        logging.shutdown()
        os._exit(INTERRUPTED if interrupted else 1)

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


class NodeBlock:
    """What `open_node` gives to ``async with``. Ctrl-C cannot hit the lines of the block itself, only its checkpoints
    and what runs inside it."""

    def __init__(self, node: Node, stall_seconds: float) -> None:
        self._block = node_block(node, stall_seconds)

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Node:
        return await self._block.__aenter__()

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(self, *exc: Any) -> bool | None:
        return await self._block.__aexit__(*exc)


def open_node(
    label: str = "node", *, stop_seconds: float = math.inf, stall_seconds: float = STALL_SECONDS
) -> AbstractAsyncContextManager[Node, bool | None]:
    """Open a node; when the block ends, by itself, by an exception, by cancellation or by Ctrl-C, everything started
    inside is stopped in reverse order before the block is left.

    An exception of the block leaves it as it is, not wrapped in a group. A stop that takes more than ``stop_seconds``
    kills what is left, and so does a second Ctrl-C (in the main task of `trio.run`, the only one that trio tells of
    it). `run` also gives the program the exit code 130 then.

    A process that passes no checkpoint for ``stall_seconds`` is named in the log, with its stack, while it holds up
    all others; inf switches that off.
    """
    if not stop_seconds >= 0:
        raise ValueError(f"stop_seconds must be a number of seconds >= 0, not {stop_seconds!r}")
    if not stall_seconds > 0:
        raise ValueError(f"stall_seconds must be a number of seconds > 0, not {stall_seconds!r}")
    return NodeBlock(Node(label, stop_seconds), stall_seconds)


@asynccontextmanager
async def node_block(node: Node, stall_seconds: float) -> AsyncIterator[Node]:
    """The block of a node."""
    before = current_node_var.get()
    failure: BaseException | None = None
    try:
        with trio.CancelScope() as way_out, stall_watch(stall_seconds):
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
                    failure = await node._stop(is_interrupt(failure)) or failure
                    # nobody would stop what is started now, as by a task that has not run yet
                    node.nursery = None
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
