"""Applications: the named parts of a program, each a supervision tree, started in the order of their dependencies."""

from __future__ import annotations

import contextvars
import logging
import math
from collections.abc import Iterable, Mapping

import attrs
import trio

from supervisors.errors import (
    AlreadyStarted,
    ApplicationEnded,
    ApplicationFailed,
    BadApplication,
    BadReturnValue,
    NodeStopped,
    NotStarted,
    StartFailed,
    SupervisorsError,
    UnknownApplication,
)
from supervisors.nodes.node import Node, stop_child
from supervisors.processes.pid import AnyPid, current_process_var
from supervisors.processes.process import watch_exit
from supervisors.processes.reports import limited_repr, logger
from supervisors.reasons import Crashed, Reason, cause_of, is_normal
from supervisors.servers.behaviour import IGNORE, Behaviour, start_in

from .child_spec import RESTARTS, Restart, Start, as_start


@attrs.frozen
class Application:
    """One part of a program.

    ``start`` is (behaviour class, args, kwargs) of its top supervisor, ``dependencies`` names the applications that
    must run before it. When a permanent one ends, so does the node; when a transient one ends, only if abnormally; the
    end of a temporary one is logged. Raises BadApplication, whose ``field`` names what is wrong.
    """

    name: str
    start: Start = attrs.field(converter=as_start)
    dependencies: tuple[str, ...] = attrs.field(default=(), converter=tuple)
    type: Restart = "temporary"

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise BadApplication("name", f"{self.name!r} is not a name")
        if len(self.start) != 3 or not (isinstance(self.start[0], type) and issubclass(self.start[0], Behaviour)):
            raise BadApplication("start", f"{self.start!r} is not (behaviour class, args, kwargs)")
        if self.type not in RESTARTS:
            raise BadApplication("type", f"{self.type!r} is none of {', '.join(RESTARTS)}")


@attrs.define(eq=False)
class _Start:
    """A start under way, which any number of tasks may wait for."""

    over: trio.Event = attrs.field(factory=trio.Event)
    pid: AnyPid | None = None
    reason: Reason = None


class Applications:
    """The applications of one node: known from the beginning, started and stopped by name.

    Raises BadApplication when a name is there twice or dependencies go round in a circle.
    """

    def __init__(self, node: Node, applications: Iterable[Application]) -> None:
        self.node = node
        self._known: dict[str, Application] = {}
        for application in applications:
            if application.name in self._known:
                raise BadApplication("name", f"{application.name!r} is there twice")
            self._known[application.name] = application
        for name in self._known:
            start_order(self._known, name)
        self._starting: dict[str, _Start] = {}
        self._running: dict[str, AnyPid] = {}
        self._stopping: set[str] = set()

    @property
    def running(self) -> Mapping[str, AnyPid]:
        """Name and top supervisor of those that run, oldest first."""
        return dict(self._running)

    async def start(self, name: str) -> AnyPid:
        """Start one application and wait until it is up; returns its top supervisor. A checkpoint.

        Whoever asks while it is being started waits for the same start and gets the same result. Cancelling the wait
        does not undo the start. Raises NotStarted when a dependency does not run, AlreadyStarted, ApplicationFailed,
        UnknownApplication, NodeStopped.
        """
        application = find(self._known, name)
        if name in self._running:
            raise AlreadyStarted(self._running[name])
        start = self._starting.get(name)
        if start is None:
            for dependency in application.dependencies:
                if dependency not in self._running:
                    raise NotStarted(dependency)
            start = self._begin(application)
        await start.over.wait()
        if start.pid is None:
            raise ApplicationFailed(name, start.reason) from cause_of(start.reason)
        return start.pid

    async def ensure_all_started(self, name: str) -> list[str]:
        """Start an application and, before it, whatever it depends on and does not run; returns the names of those
        this call has started, in order. A checkpoint when there are any.

        When one fails, those this call has started are stopped again, in reverse, and its error is raised.
        """
        started: list[str] = []
        for each in start_order(self._known, name):
            if each in self._running:
                continue
            joined = each in self._starting
            try:
                await self.start(each)
            except SupervisorsError:
                for undone in reversed(started):
                    if undone in self._running:
                        await self.stop(undone)
                raise
            if not joined:
                started.append(each)
        return started

    async def stop(self, name: str) -> None:
        """Stop an application in good order, as its supervisors' specs say, and wait for its end.

        Those that depend on it are not asked. A checkpoint; cancelling the wait does not undo the stop. NotStarted
        when it does not run.
        """
        pid = self._running.get(find(self._known, name).name)
        if pid is None:
            raise NotStarted(name)
        self._stopping.add(name)
        await stop_child(pid, math.inf)

    # -- events

    def _begin(self, application: Application) -> _Start:
        nursery = self.node.nursery
        if nursery is None:
            raise NodeStopped(self.node.label)
        start = self._starting[application.name] = _Start()
        context = contextvars.copy_context()
        context.run(current_process_var.set, None)  # whoever asks first is not its parent
        context.run(nursery.start_soon, self._start_top, application, start)
        return start

    async def _start_top(self, application: Application, start: _Start) -> None:
        function, args, kwargs = application.start
        try:
            pid = await start_in(
                self.node.nursery,
                self.node,
                function,
                args,
                dict(kwargs),
                name=None,
                label=application.name,
                timeout=math.inf,
            )
            if pid is IGNORE:
                start.reason = Crashed(BadReturnValue(f"init of application {application.name!r}", IGNORE))
            else:
                start.pid = self._running[application.name] = pid
        except StartFailed as exc:
            start.reason = exc.reason
        except NodeStopped as exc:
            start.reason = Crashed(exc)
        except trio.Cancelled:
            start.reason = Crashed(NodeStopped(self.node.label))
            raise
        finally:
            del self._starting[application.name]
            start.over.set()
        if start.pid is not None:
            watch_exit(start.pid, lambda pid: self._ended(application, pid))

    def _ended(self, application: Application, pid: AnyPid) -> None:
        del self._running[application.name]
        reason = pid.exit_reason
        if application.name in self._stopping:
            self._stopping.remove(application.name)
            return
        ends = application.type == "permanent" or (application.type == "transient" and not is_normal(reason))
        level = logging.INFO if is_normal(reason) and not ends else logging.ERROR
        if not self.node.stopping:
            logger.log(level, "%s application %s ended: %s", application.type, pid, limited_repr(reason, 3))
        if ends:
            self.node.end(ApplicationEnded(application.name, reason))


def find(known: Mapping[str, Application], name: str) -> Application:
    """The application of that name; UnknownApplication."""
    application = known.get(name)
    if application is None:
        raise UnknownApplication(name)
    return application


def start_order(known: Mapping[str, Application], name: str) -> list[str]:
    """An application after all it depends on, which come in the order they are named. A pure function.

    Dependencies that are not known are in it too. BadApplication when they go round in a circle.
    """
    order: dict[str, None] = {}
    above: list[str] = []

    def visit(each: str) -> None:
        if each in above:
            raise BadApplication("dependencies", f"go round in a circle: {' -> '.join([*above, each])}")
        above.append(each)
        for dependency in known[each].dependencies if each in known else ():
            visit(dependency)
        above.pop()
        order.setdefault(each)

    visit(name)
    return list(order)
