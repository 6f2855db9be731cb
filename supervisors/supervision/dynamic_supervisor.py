"""The dynamic supervisor: any number of independent children, started on request."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from contextvars import Context
from typing import Any, ClassVar, Final, Literal, TypeAlias

import trio

from supervisors.calls.call import ANSWERED, FAILED, From
from supervisors.errors import AlreadyStarted, BadFlags, MaxChildren, NotFound, StartFailed, SupervisorsError
from supervisors.introspection.system import answer_system
from supervisors.nodes.node import KILL_GRACE_SECONDS
from supervisors.processes.mailbox import CALL, CHILD_EXIT, CHILD_READY, RETRY, SYSTEM, Item
from supervisors.processes.pid import AnyPid, Ignore, Pid
from supervisors.processes.process import kill, mark_ready, request_shutdown
from supervisors.reasons import SHUTDOWN, Reason, cause_of, is_fatal, is_normal
from supervisors.servers.behaviour import IGNORE, Behaviour, abort_start

from .backoff import Backoff
from .child_control import ChildCommand, ChildQuery, StartChild
from .child_spec import BRUTAL_KILL, SupervisorFlags, check_significant
from .restart_policy import RestartWindow, after_exit
from .supervision_loop import Child, StopSupervising, SupervisionLoop

Deadline: TypeAlias = Literal["kill", "report", "restart"]

MOST_OLD_DEADLINES: Final = 64
"""How many deadlines of children that have gone are kept at most, beside two for each child there is."""


class DynamicSupervisor(Behaviour):
    """Starts children on request (`start_child`), restarts each by itself, stops them all at once.

    Children are named by pid; the id of a spec is only a label. ``max_children`` bounds them, those being restarted
    included. ``intensity`` and ``period`` are one window for all children, as in `SupervisorFlags`, and so is
    ``backoff``.

    Nothing a child does keeps the others waiting: starts and stops go on side by side.
    """

    child_type: ClassVar[Literal["worker", "supervisor"]] = "supervisor"

    def __init__(
        self,
        max_children: float | None = None,
        intensity: int = 1,
        period: float = 5.0,
        backoff: Backoff | None = None,
    ) -> None:
        if max_children is not None and (isinstance(max_children, bool) or not max_children >= 0):
            raise BadFlags("max_children", f"{max_children!r} is neither None nor a number >= 0")
        self.max_children = max_children
        self.flags = SupervisorFlags(intensity=intensity, period=period, backoff=backoff)

    def init(self) -> Ignore | None:
        """Override it to return IGNORE."""
        return None

    @classmethod
    async def run_behaviour(cls, pid: AnyPid, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The body of the process."""
        supervisor = cls(*args, **kwargs)
        if supervisor.init() is IGNORE:
            pid.ignored = True
            return
        await _DynamicLoop(pid, supervisor.flags, supervisor.max_children).run()


class _DynamicLoop(SupervisionLoop):
    """Everything is an event; no step waits, so no child can hold up another."""

    def __init__(self, pid: AnyPid, flags: SupervisorFlags, max_children: float | None) -> None:
        super().__init__(pid, flags.backoff)
        self.max_children = math.inf if max_children is None else max_children
        self.window = RestartWindow(flags.intensity, flags.period)
        self.children: dict[Child, None] = {}
        self.by_process: dict[AnyPid, Child] = {}
        self.deadlines: list[tuple[float, int, Deadline, Any]] = []
        """A heap: when a stopping process is killed, then reported as unkillable; when a child is started again."""
        self.entries = 0

    def table(self) -> Iterable[Child]:
        return self.children

    def find(self, child: Any) -> Child:
        try:
            found = self.by_process.get(child)
        except TypeError:
            found = None
        if found is None or (found.process is not child and not found.restarting):
            raise NotFound(child)
        return found

    async def serve(self) -> None:
        mark_ready(self.pid)
        while True:
            item = await self.next_item(self.deadlines[0][0] if self.deadlines else math.inf)
            if item is None:
                self.enforce_deadlines()
            else:
                self.handle(item)

    def handle(self, item: Item) -> None:
        kind, payload, from_ = item
        if kind == CHILD_EXIT:
            self.child_exited(payload)
        elif kind == CHILD_READY:
            self.child_ready(payload)
        elif kind == CALL and isinstance(payload, ChildQuery):
            self.answer(payload, from_)
        elif kind == CALL and isinstance(payload, (StartChild, ChildCommand)):
            try:
                if self.stopping:
                    self.refuse(from_)
                elif isinstance(payload, StartChild):
                    self.start_child(payload, from_)
                elif payload.kind == "terminate":
                    self.terminate_child(payload.child, from_)
                else:
                    raise NotFound(payload.child)
            except SupervisorsError as exc:
                from_.resolve_with(FAILED, exc)
        elif kind == RETRY:
            if payload.restarting and payload in self.children:
                self.restart(payload)
        elif kind == SYSTEM:
            answer_system(self, payload, from_)
        else:
            stop = self.stop_reason(item)
            if stop is None:
                self.unexpected(payload, from_)
            elif not self.stopping:
                raise stop

    # -- starting

    def start_child(self, command: StartChild, from_: From) -> None:
        check_significant(command.spec, "never")
        if len(self.children) >= self.max_children:
            raise MaxChildren(int(self.max_children))
        child = Child(command.spec, starter=from_)
        try:
            self.launch(child, command.context)
        except AlreadyStarted as exc:
            self.report("start_error", exc, child.spec, None)
            raise

    def launch(self, child: Child, context: Context | None = None) -> None:
        pid = self.launch_child(child.spec, context)
        self.children[child] = None
        child.process = pid
        self.by_process[pid] = child
        if pid.ready:
            self.child_ready(pid)

    def child_ready(self, pid: AnyPid) -> None:
        child = self.by_process.get(pid)
        if child is None or child.process is not pid or child.stopping:
            return
        if child.last_pid is not None and child.last_pid is not pid:
            self.by_process.pop(child.last_pid, None)
        child.last_pid = pid
        self.came_up(child, pid)
        starter, child.starter = child.starter, None
        if starter is not None:
            starter.resolve_with(ANSWERED, pid)

    # -- ends and restarts

    def child_exited(self, pid: AnyPid) -> None:
        fatal = is_fatal(pid.exit_reason) and not self.stopping
        child = self.by_process.get(pid)
        if child is not None and child.process is pid:  # pragma: no branch  (a launch that broke off has no line)
            child.process = None
            if fatal and pid.ready:
                self.remove(child, pid)
            else:
                self.settle(child, pid)
        if fatal:
            raise StopSupervising(SHUTDOWN)

    def settle(self, child: Child, pid: AnyPid) -> None:
        """What becomes of a child whose process has ended."""
        if child.stopping:
            if pid.ready:
                self.report_stopped(child.spec, pid)
            self.remove(child, pid)
        elif pid.ready:
            self.ended_by_itself(child, pid)
        else:
            self.start_failed(child, pid)

    def start_failed(self, child: Child, pid: AnyPid) -> None:
        reason = pid.exit_reason
        starter, child.starter = child.starter, None
        if pid.ignored:
            self.remove(child, pid)
            if starter is not None:
                starter.resolve_with(ANSWERED, IGNORE)
            return
        self.report("start_error", reason, child.spec, pid)
        if child.restarting:
            self.by_process.pop(pid, None)
            self.pid.mailbox.put((RETRY, child, None))
            return
        self.remove(child, pid)
        assert starter is not None, "a first start was asked for"
        failure = StartFailed(reason, child.spec)
        failure.__cause__ = cause_of(reason)
        starter.resolve_with(FAILED, failure)

    def ended_by_itself(self, child: Child, pid: AnyPid) -> None:
        reason: Reason = pid.exit_reason
        then = after_exit(child.spec.restart, reason)
        if then == "restart" or not is_normal(reason):
            self.report("child_terminated", reason, child.spec, pid)
        if self.stopping or then != "restart":
            self.remove(child, pid)
        else:
            child.restarting = True
            self.restart(child)

    def restart(self, child: Child) -> None:
        if not self.window.add(trio.current_time()):
            self.report("shutdown", "reached_max_restart_intensity", child.spec, child.last_pid)
            raise StopSupervising(SHUTDOWN)
        delay = self.restart_delay(child)
        if delay:
            self.set_deadline(trio.current_time() + delay, "restart", child)
        else:
            self.start_again(child)

    def start_again(self, child: Child) -> None:
        child.restarts += 1
        try:
            self.launch(child)
        except AlreadyStarted as exc:
            self.report("start_error", exc, child.spec, None)
            self.pid.mailbox.put((RETRY, child, None))

    def remove(self, child: Child, pid: AnyPid) -> None:
        self.children.pop(child, None)
        self.by_process.pop(pid, None)
        if child.last_pid is not None:
            self.by_process.pop(child.last_pid, None)
        waiting, child.waiting = child.waiting, []
        for from_ in waiting:
            from_.resolve_with(ANSWERED, None)
        if child.starter is not None:
            failure = StartFailed(pid.exit_reason, child.spec)
            child.starter.resolve_with(FAILED, failure)

    # -- stopping

    def terminate_child(self, key: Any, from_: From) -> None:
        child = self.find(key)
        child.waiting.append(from_)
        if child.process is None:
            child.restarting = False
            self.remove(child, key)
        else:
            self.begin_stop(child)

    def begin_stop(self, child: Child) -> None:
        pid = child.process
        if pid is None or child.stopping:
            return
        child.restarting = False
        child.stopping = True
        now = trio.current_time()
        if child.spec.shutdown is BRUTAL_KILL:
            kill(pid)
            self.set_deadline(now + KILL_GRACE_SECONDS, "report", pid)
        else:
            deadline = now + child.spec.shutdown_seconds
            if not pid.ready:
                abort_start(pid)
                if not pid.is_supervisor:
                    deadline = now
            request_shutdown(pid, SHUTDOWN, deadline)
            self.set_deadline(deadline, "kill", pid)

    def set_deadline(self, deadline: float, what: Deadline, whom: AnyPid | Child) -> None:
        if deadline != math.inf:
            if len(self.deadlines) > 2 * len(self.children) + MOST_OLD_DEADLINES:
                # those that stopped long before their time are not kept until then
                self.deadlines = [entry for entry in self.deadlines if self.concerns(entry[3])]
                heapq.heapify(self.deadlines)
            self.entries += 1
            heapq.heappush(self.deadlines, (deadline, self.entries, what, whom))

    def concerns(self, whom: AnyPid | Child) -> bool:
        """False when a deadline is about somebody who has gone."""
        return whom.alive if isinstance(whom, Pid) else whom in self.children

    def enforce_deadlines(self) -> None:
        """Kill those whose time is up, report those that outlive their kill, start those whose backoff has passed."""
        now = trio.current_time()
        while self.deadlines and self.deadlines[0][0] <= now:
            _, _, what, whom = heapq.heappop(self.deadlines)
            if what == "restart":
                if whom in self.children:
                    self.start_again(whom)
                continue
            child = self.by_process.get(whom)
            if child is None or not whom.alive:
                continue
            if what == "report":
                self.report_unkillable(child.spec, whom)
            else:
                kill(whom)
                self.set_deadline(now + KILL_GRACE_SECONDS, "report", whom)

    async def stop_children(self) -> None:
        """All at once, each by its own spec; waits for the last."""
        for child in list(self.children):
            if child.process is None:
                self.children.pop(child, None)
            else:
                self.begin_stop(child)
        while self.children:
            item = await self.next_item(self.deadlines[0][0] if self.deadlines else math.inf)
            if item is None:
                self.enforce_deadlines()
            else:
                self.handle(item)
