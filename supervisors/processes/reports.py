"""Crash and supervisor reports: frozen values, logged once and handed to the node's report hooks."""

from __future__ import annotations

import logging
import reprlib
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import attrs

from supervisors.reasons import Crashed, Reason

if TYPE_CHECKING:
    from supervisors.nodes.node import Node

    from .pid import Pid

logger = logging.getLogger("supervisors")

SupervisorContext: TypeAlias = Literal[
    "child_terminated", "start_error", "shutdown", "shutdown_error", "unkillable", "progress"
]


def limited_repr(value: object, depth: int | None = None) -> str:
    """``repr`` on one line, cut to ``depth`` levels when given; a repr that raises is named, not raised."""
    try:
        if depth is None:
            text = repr(value)
        else:
            cut = reprlib.Repr()
            cut.maxlevel = depth
            cut.maxother = cut.maxstring = 60
            cut.maxtuple = cut.maxlist = cut.maxdict = cut.maxset = max(1, depth)
            text = cut.repr(value)
    except Exception as exc:
        text = f"<repr of {type(value).__name__} raised {type(exc).__name__}>"
    return text.replace("\n", "\\n")


@attrs.frozen(eq=False)
class CrashReport:
    """One process ended abnormally. One crash is one report.

    ``reason``, ``last_message``, ``state`` and ``log`` are as `format_reason`, `format_message` and `format_status` of
    the server show them; for plain processes the last three are empty. ``client`` is the process whose call was being
    handled, ``ancestors`` its parents, nearest first, ``neighbours`` the processes linked to it. ``restarts`` counts
    how often its supervisor had restarted it, ``queue_length`` what was left unread in its mailbox.
    """

    pid: Pid[Any]
    reason: Reason
    last_message: object = None
    state: object = None
    client: Pid[Any] | None = None
    ancestors: tuple[Pid[Any], ...] = ()
    neighbours: tuple[Pid[Any], ...] = ()
    started_as: str = ""
    restarts: int = 0
    queue_length: int = 0
    log: tuple[object, ...] = ()

    def one_line(self, depth: int | None = 3) -> str:
        """The report on one line, values cut to ``depth`` levels (None: whole)."""
        return (
            f"{self.pid!r} crashed: {limited_repr(self.reason, depth)}; "
            f"last message {limited_repr(self.last_message, depth)}; "
            f"state {limited_repr(self.state, depth)}; client {self.client!r}; restarts {self.restarts}"
        )

    def format(self, depth: int | None = None) -> str:
        """The report on several lines, with the traceback."""
        lines = [
            f"crash of {self.pid!r}",
            f"  started as: {self.started_as}",
            f"  reason: {limited_repr(self.reason, depth)}",
            f"  last message: {limited_repr(self.last_message, depth)}",
            f"  state: {limited_repr(self.state, depth)}",
            f"  client: {self.client!r}",
            f"  ancestors: {', '.join(map(repr, self.ancestors))}",
            f"  neighbours: {', '.join(map(repr, self.neighbours))}",
            f"  restarts: {self.restarts}",
            f"  queue length: {self.queue_length}",
        ]
        lines += [f"  log: {limited_repr(event, depth)}" for event in self.log]
        if isinstance(self.reason, Crashed):
            lines += "".join(traceback.format_exception(self.reason.exception)).splitlines()
        return "\n".join(lines)


@attrs.frozen(eq=False)
class SupervisorReport:
    """What happened to a child, as seen by its supervisor. ``offender`` is the child spec, ``pid`` its process."""

    supervisor: Pid[Any]
    context: SupervisorContext
    reason: Reason
    offender: Any
    pid: Pid[Any] | None = None

    def one_line(self, depth: int | None = 3) -> str:
        """The report on one line, values cut to ``depth`` levels (None: whole)."""
        child = getattr(self.offender, "id", None)
        return (
            f"{self.supervisor!r} {self.context}: child {limited_repr(child, depth)} {self.pid!r}: "
            f"{limited_repr(self.reason, depth)}"
        )

    def format(self, depth: int | None = None) -> str:
        """The report on several lines."""
        return "\n".join(
            [
                f"supervisor {self.supervisor!r}",
                f"  context: {self.context}",
                f"  reason: {limited_repr(self.reason, depth)}",
                f"  offender: {limited_repr(self.offender, depth)}",
                f"  pid: {self.pid!r}",
            ]
        )


Report: TypeAlias = CrashReport | SupervisorReport


def emit(node: Node, report: Report, level: int = logging.ERROR) -> None:
    """Log the report once and give it to the hooks; a hook that raises is logged and kept."""
    if logger.isEnabledFor(level):
        exc = None
        if isinstance(report, CrashReport) and isinstance(report.reason, Crashed):
            exc = report.reason.exception
        logger.log(level, "%s", report.one_line(), extra={"report": report}, exc_info=exc)
    for hook in tuple(node.report_hooks):
        try:
            hook(report)
        except Exception:
            logger.exception("report hook %r raised", hook)


def listened_to(node: Node, level: int) -> bool:
    """True when a report of that level would reach anybody: otherwise it need not be made."""
    return bool(node.report_hooks) or logger.isEnabledFor(level)


def report_crash(pid: Pid[Any], reason: Reason, **seen_by_the_loop: Any) -> None:
    """Log the crash of a process and give it to the hooks. What only its loop knows is given by keyword."""
    if not listened_to(pid.node, logging.ERROR):
        return
    emit(
        pid.node,
        CrashReport(
            pid,
            reason,
            ancestors=pid.ancestors,
            neighbours=tuple(pid._links or ()),
            started_as=pid.started_as,
            restarts=restarts_of(pid),
            queue_length=len(pid.mailbox),
            **seen_by_the_loop,
        ),
    )


def restarts_of(pid: Pid[Any]) -> int:
    """How often its supervisor has restarted the child whose process this is; 0 for all others."""
    supervisor = pid._parent
    loop: Any = None if supervisor is None or not supervisor.is_supervisor else supervisor._loop
    return 0 if loop is None else int(loop.restarts_of(pid))


def on_report(node: Node, callback: Callable[[Report], None]) -> Callable[[], None]:
    """Call ``callback(report)`` for each report of the node, synchronously; returns what takes it off again."""
    node.report_hooks.append(callback)

    def remove() -> None:
        if callback in node.report_hooks:
            node.report_hooks.remove(callback)

    return remove
