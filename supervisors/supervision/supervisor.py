"""The supervisor: an ordered list of children, a strategy, a limit on restarts."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from contextvars import Context
from typing import Any, ClassVar, Literal, TypeAlias

import trio

from supervisors.calls.call import ANSWERED, FAILED, From
from supervisors.errors import (
    AlreadyPresent,
    AlreadyStarted,
    BadReturnValue,
    ChildRestarting,
    ChildRunning,
    Deadlock,
    NotFound,
    StartFailed,
    SupervisorsError,
)
from supervisors.introspection.system import answer_system
from supervisors.nodes.node import KILL_GRACE_SECONDS
from supervisors.processes.mailbox import CALL, CHILD_EXIT, CHILD_READY, RETRY, SYSTEM, Item
from supervisors.processes.pid import AnyPid, Ignore, Pid
from supervisors.processes.process import kill, mark_ready, request_shutdown, watch_exit
from supervisors.reasons import SHUTDOWN, cause_of, is_fatal, is_normal
from supervisors.servers.behaviour import IGNORE, Behaviour, abort_start

from .child_control import ChildCommand, ChildQuery, Command, StartChild
from .child_spec import BRUTAL_KILL, ChildSpec, SupervisorFlags, check_significant, check_specs
from .restart_policy import PendingRestart, RestartWindow, affected_children, after_exit, first_due, join, shuts_down
from .supervision_loop import Child, FailedToStartChild, StopSupervising, SupervisionLoop

InitResult: TypeAlias = tuple[SupervisorFlags, Iterable[Any]] | Ignore
"""What `Supervisor.init` gives."""


class Supervisor(Behaviour):
    """Starts its children in order, restarts them by its strategy, stops them in reverse order, one after another.

    Subclass it and override `init`, or use it as it is: ``node.start(Supervisor, flags, specs)``. A restarted child
    is built anew from its spec. The restart that is one too many stops all children and ends the supervisor with
    ``Shutdown``.
    """

    child_type: ClassVar[Literal["worker", "supervisor"]] = "supervisor"

    def __init__(self, flags: SupervisorFlags | None = None, specs: Iterable[Any] = ()) -> None:
        self._flags = SupervisorFlags() if flags is None else flags
        self._specs = specs

    def init(self) -> InitResult | Awaitable[InitResult]:
        """The flags and the child specs (`ChildSpec`, mappings, or bare behaviour classes), or IGNORE.

        An ``async def init`` will do as well.
        """
        return self._flags, self._specs

    @classmethod
    async def run_behaviour(cls, pid: AnyPid, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The body of the process."""
        result: Any = cls(*args, **kwargs).init()
        if isinstance(result, Awaitable):
            result = await result
        if result is IGNORE:
            pid.ignored = True
            return
        if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[0], SupervisorFlags):
            raise BadReturnValue(f"{cls.__name__}.init", result)
        flags, specs = result
        await _SupervisorLoop(pid, flags, check_specs(specs, flags.auto_shutdown)).run()


class _SupervisorLoop(SupervisionLoop):
    """One task, one queue. While it waits for a child to come up or to end it keeps reading the queue: questions are
    answered at once, a stop interrupts, everything else is put off until the operation is over."""

    def __init__(self, pid: AnyPid, flags: SupervisorFlags, specs: list[ChildSpec]) -> None:
        super().__init__(pid, flags.backoff)
        self.flags = flags
        self.window = RestartWindow(flags.intensity, flags.period)
        self.first_specs = specs
        self.children: dict[Hashable, Child] = {}
        self.by_process: dict[AnyPid, Child] = {}
        self.put_off: deque[Item] = deque()
        self.new: Child | None = None
        """The child that is being started and not in the table yet."""
        self.waits_for: AnyPid | None = None
        self.starting_again: Child | None = None
        self.pending: list[PendingRestart[Child, AnyPid]] = []

    def table(self) -> Iterable[Child]:
        children = list(self.children.values())
        if self.new is not None:
            children.append(self.new)
        return children

    def find(self, child: Any) -> Child:
        found = self.by_id(child)
        if found is None and isinstance(child, Pid):
            found = self.by_process.get(child)
        if found is None:
            raise NotFound(child)
        return found

    def by_id(self, child_id: Any) -> Child | None:
        return self.children.get(child_id) if isinstance(child_id, Hashable) else None

    # -- the queue

    async def serve(self) -> None:
        for spec in self.first_specs:
            try:
                await self.add(spec)
            except (StartFailed, AlreadyStarted) as exc:
                reason = exc.reason if isinstance(exc, StartFailed) else exc
                raise StopSupervising(FailedToStartChild(spec.id, reason)) from exc
        self.first_specs = []
        mark_ready(self.pid)
        while True:
            if self.put_off and not self.pid.mailbox.system:
                await self.handle(self.put_off.popleft())
                continue
            item = await self.next_item(min((p.startable_at for p in self.pending), default=math.inf))
            if item is not None:
                await self.handle(item)
            else:
                await self.start_pending()

    async def handle(self, item: Item) -> None:
        kind, payload, from_ = item
        retried: Child = payload  # when kind is RETRY
        if kind == CHILD_EXIT:
            await self.child_exited(payload)
        elif kind == CALL and isinstance(payload, ChildQuery):
            self.answer(payload, from_)
        elif kind == CALL and isinstance(payload, (StartChild, ChildCommand)):
            try:
                await self.execute(payload, from_)
            except SupervisorsError as exc:
                from_.resolve_with(FAILED, exc)
        elif kind == RETRY:
            if retried.restarting and self.children.get(retried.spec.id) is retried:
                await self.restart(retried, None)
        elif kind == SYSTEM:
            answer_system(self, payload, from_)
        elif kind != CHILD_READY:
            stop = self.stop_reason(item)
            if stop is not None:
                raise stop
            self.unexpected(payload, from_)

    async def wait(self, done: Callable[[], bool], deadline: float = math.inf) -> bool:
        """Wait for ``done``, with the queue still answering; False at the deadline. StopSupervising when told to."""
        while not done():
            item = await self.next_item(deadline)
            if item is None:
                return done()
            kind, payload, from_ = item
            if kind == CALL and isinstance(payload, ChildQuery):
                self.answer(payload, from_)
            elif kind == CALL and isinstance(payload, (StartChild, ChildCommand)):
                self.meanwhile(item, payload, from_)
            elif kind == SYSTEM:
                answer_system(self, payload, from_)
            elif kind != CHILD_READY:
                stop = self.stop_reason(item)
                if stop is None:
                    self.put_off.append(item)
                    if kind == CHILD_EXIT:
                        self.interrupt_restart(payload)
                elif not self.stopping:
                    raise stop
        return True

    def interrupt_restart(self, pid: AnyPid) -> None:
        """Give up a start whose group has to be restarted anyway, since ``pid`` has ended: it may take for ever."""
        failed, starting = self.by_process.get(pid), self.starting_again
        if failed is None or failed.process is not pid or failed.stopping or starting is None:
            return
        process = starting.process
        if process is None or process.ready or after_exit(failed.spec.restart, pid.exit_reason) != "restart":
            return
        if starting in self.affected(failed):
            abort_start(process)

    def meanwhile(self, item: Item, command: Command, from_: From) -> None:
        """A command that comes during an operation: what concerns a restarting child is settled at once."""
        if self.stopping:
            self.refuse(from_)
            return
        if from_.caller is not None and from_.caller is self.waits_for:
            # the child we wait for waits for us
            from_.resolve_with(FAILED, Deadlock([from_.caller, self.pid, from_.caller]))
            return
        child_id = command.spec.id if isinstance(command, StartChild) else command.child
        child = self.by_id(child_id)
        if child is None or not child.restarting:
            self.put_off.append(item)
        elif isinstance(command, StartChild):
            from_.resolve_with(FAILED, AlreadyPresent(child_id))
        elif command.kind == "terminate":
            self.cancel_restart(child, from_)
        else:
            from_.resolve_with(FAILED, ChildRestarting(child_id))

    def cancel_restart(self, child: Child, from_: From) -> None:
        """Give a restart up; the answer goes out when nothing of the child runs any more."""
        child.restarting = False
        process = child.process
        if process is None or not process.alive:
            from_.resolve_with(ANSWERED, None)
            return
        if not process.ready:
            abort_start(process)
        watch_exit(process, lambda _: from_.resolve_with(ANSWERED, None))

    async def execute(self, command: Command, from_: From) -> None:
        """A command, with no other operation under way."""
        if isinstance(command, StartChild):
            check_significant(command.spec, self.flags.auto_shutdown)
            present = self.children.get(command.spec.id)
            if present is not None:
                running = present.shown()
                raise AlreadyStarted(running) if isinstance(running, Pid) else AlreadyPresent(command.spec.id)
            from_.resolve_with(ANSWERED, await self.add(command.spec, command.context))
            return
        child = self.by_id(command.child)
        if child is None:
            raise NotFound(command.child)
        if command.kind == "terminate":
            await self.terminate(child, from_)
        elif child.restarting:
            raise ChildRestarting(command.child)
        elif child.process is not None and child.process.alive:
            raise ChildRunning(command.child)
        elif command.kind == "delete":
            del self.children[command.child]
            from_.resolve_with(ANSWERED, None)
        else:
            from_.resolve_with(ANSWERED, await self.start(child))

    async def terminate(self, child: Child, from_: From) -> None:
        if child.restarting:
            self.cancel_restart(child, from_)
            return
        if child.process is not None:
            child.stopping = True
            if not await self.stop_process(child):
                # it outlives its kill: the queue goes on, the answer comes when it has ended
                assert child.process is not None
                watch_exit(child.process, lambda _: from_.resolve_with(ANSWERED, None))
                return
            child.stopping = False
        self.has_ended(child)
        from_.resolve_with(ANSWERED, None)

    # -- starting

    async def add(self, spec: ChildSpec, context: Context | None = None) -> AnyPid:
        """Start a new child and put it into the table; nothing is kept of one that fails."""
        child = self.new = Child(spec)
        try:
            pid = await self.start(child, context)
        finally:
            # interrupted by a stop it is still to be found as new: it may even be ready, and nobody else knows of it
            if child.process is None:
                self.new = None
        if pid is not IGNORE or spec.restart != "temporary":
            self.children[spec.id] = child
        self.new = None
        return pid

    async def start(self, child: Child, context: Context | None = None) -> AnyPid:
        """Start the process of a child and wait until it is ready; reports what fails."""
        try:
            pid = self.launch_child(child.spec, context)
        except AlreadyStarted as exc:
            self.report("start_error", exc, child.spec, None)
            raise
        child.process = pid
        if not pid.ready:
            self.waits_for = pid
            try:
                await self.wait(lambda: pid.ready or not pid.alive)
            finally:
                self.waits_for = None
        if pid.ready:
            self.by_process[pid] = child
            self.came_up(child, pid)
            return pid
        child.process = None
        if pid.ignored:
            child.restarting = False
            return IGNORE
        reason = pid.exit_reason
        self.report("start_error", reason, child.spec, pid)
        raise StartFailed(reason, child.spec) from cause_of(reason)

    # -- ends and restarts

    async def child_exited(self, pid: AnyPid) -> None:
        if is_fatal(pid.exit_reason):
            raise StopSupervising(SHUTDOWN)
        child = self.by_process.pop(pid, None)
        if any(pid in pending.resisting for pending in self.pending):
            if child is not None and child.process is pid:  # pragma: no branch  (what resists has its line)
                self.has_ended(child)
            for pending in self.pending:
                pending.resisting.discard(pid)
            return
        if child is None or child.process is not pid:
            return  # stopped by us, or replaced
        spec, reason = child.spec, pid.exit_reason
        if child.stopping:
            child.stopping = False
            self.has_ended(child)
            return
        child.process = None
        then = after_exit(spec.restart, reason)
        if then == "restart" or not is_normal(reason):
            self.report("child_terminated", reason, spec, pid)
        if then == "restart":
            await self.restart(child, pid)
            return
        if then == "remove":
            del self.children[spec.id]
        others = any(c.active for c in self.children.values() if c.spec.significant and c is not child)
        if shuts_down(self.flags.auto_shutdown, spec.significant, others):
            raise StopSupervising(SHUTDOWN)

    def has_ended(self, child: Child) -> None:
        """The process of a child that was stopped is gone; so is a temporary child."""
        child.process = None
        if child.spec.restart == "temporary":
            self.children.pop(child.spec.id, None)

    async def restart(self, child: Child, pid: AnyPid | None) -> None:
        """Count a restart, or end when it is one too many."""
        if not self.window.add(trio.current_time()):
            self.report("shutdown", "reached_max_restart_intensity", child.spec, pid)
            raise StopSupervising(SHUTDOWN)
        await self.restart_affected(child)

    async def restart_affected(self, failed: Child) -> None:
        """Stop those the strategy names, newest first, and start them in order, after their backoff.

        A start that fails is tried again through the queue, so that the supervisor answers between two tries.
        """
        delay = self.restart_delay(failed)
        affected = self.affected(failed)
        if len(affected) == 1 and not delay and failed.process is None:
            failed.restarting = True
            await self.start_again(affected)
            return
        for child in affected:
            child.restarting = child.spec.restart != "temporary"
        resisting: set[AnyPid] = set()
        for child in reversed(affected):
            if child.process is not None and not await self.stop_process(child):
                resisting.add(child.process)
        for child in affected:
            if child.process is None:
                self.has_ended(child)
        if not delay and not resisting and not self.pending:
            await self.start_again(affected)
            return
        self.pending = join(self.pending, PendingRestart(affected, trio.current_time() + delay, resisting))

    def affected(self, failed: Child) -> Sequence[Child]:
        if self.flags.strategy == "one_for_one":
            return (failed,)
        return affected_children(self.flags.strategy, list(self.children.values()), failed)

    async def start_pending(self) -> None:
        """Start the group that has been due for longest; another one when the queue has been looked at."""
        pending = first_due(self.pending, trio.current_time())
        if pending is not None:  # pragma: no branch  (the loop comes here when something is due)
            self.pending.remove(pending)
            await self.start_again(pending.children)

    async def start_again(self, affected: Sequence[Child]) -> None:
        for place, child in enumerate(affected):
            if not child.restarting:
                continue  # temporary, or terminated meanwhile
            self.starting_again = child
            child.restarts += 1
            try:
                await self.start(child)
            except (StartFailed, AlreadyStarted):
                if not child.restarting:
                    continue  # terminated while it was starting
                for later in affected[place + 1 :]:
                    later.restarting = False
                self.pid.mailbox.put((RETRY, child, None))
                return
            finally:
                self.starting_again = None

    # -- stopping

    async def stop_process(self, child: Child) -> bool:
        """Stop one process as its spec says; False when it outlives even its kill."""
        pid = child.process
        assert pid is not None
        self.waits_for = pid
        try:
            if not await self.end_process(pid, child.spec):
                self.report_unkillable(child.spec, pid)
                return False
        finally:
            self.waits_for = None
        self.by_process.pop(pid, None)
        child.process = None
        self.report_stopped(child.spec, pid)
        return True

    async def end_process(self, pid: AnyPid, spec: ChildSpec) -> bool:
        def ended() -> bool:
            return not pid.alive

        if pid.alive:
            if spec.shutdown is BRUTAL_KILL:
                kill(pid)
            else:
                deadline = trio.current_time() + spec.shutdown_seconds
                request_shutdown(pid, SHUTDOWN, deadline)
                if not await self.wait(ended, deadline):
                    kill(pid)
        return await self.wait(ended, trio.current_time() + KILL_GRACE_SECONDS)

    async def stop_children(self) -> None:
        """Newest first, strictly one after another; those that outlive their kill are waited for at the end."""
        children = list(self.table())
        self.pending.clear()
        for kind, payload, from_ in self.put_off:
            if kind == CALL and isinstance(payload, (StartChild, ChildCommand)):
                self.refuse(from_)
        self.put_off.clear()
        for child in reversed(children):
            child.restarting = False
            if child.process is not None:
                await self.stop_process(child)
        await self.wait(lambda: all(c.process is None or not c.process.alive for c in children))
