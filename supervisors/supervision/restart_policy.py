"""What a supervisor decides: plain functions on values, no clock, no trio."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Generic, Literal, TypeAlias, TypeVar

import attrs

from supervisors.reasons import Reason, is_normal

from .child_spec import AutoShutdown, Restart, Strategy

T = TypeVar("T")
P = TypeVar("P")

AfterExit: TypeAlias = Literal["restart", "keep", "remove"]


@attrs.define(eq=False)
class RestartWindow:
    """Counts restarts; more than ``intensity`` within ``period`` seconds is too many.

    Both ends of the window count, as in OTP's ``supervisor:add_restart/1``; unlike there, time is a float.
    """

    intensity: int
    period: float
    times: deque[float] = attrs.field(factory=deque)

    def add(self, now: float) -> bool:
        """Count a restart at ``now`` (seconds, never going back); False when it is one too many."""
        self.times.append(now)
        oldest = now - self.period
        while self.times[0] < oldest:
            self.times.popleft()
        while len(self.times) > self.intensity + 1:
            self.times.popleft()
        return len(self.times) <= self.intensity


def after_exit(restart: Restart, reason: Reason) -> AfterExit:
    """What becomes of a child that ended by itself."""
    if restart == "permanent":
        return "restart"
    if restart == "temporary":
        return "remove"
    return "keep" if is_normal(reason) else "restart"


def affected_children(strategy: Strategy, children: Sequence[T], failed: T) -> Sequence[T]:
    """The children that are stopped (in reverse) and started again (in order) when ``failed`` has ended."""
    if strategy == "one_for_one":
        return (failed,)
    if strategy == "one_for_all":
        return tuple(children)
    return tuple(children[children.index(failed) :])


def shuts_down(auto_shutdown: AutoShutdown, significant: bool, others_active: bool) -> bool:
    """Whether a child that ended by itself, and is not restarted, takes its supervisor with it.

    ``others_active`` says whether another significant child runs or is being restarted.
    """
    if not significant or auto_shutdown == "never":
        return False
    return auto_shutdown == "any_significant" or not others_active


@attrs.define(eq=False)
class PendingRestart(Generic[T, P]):
    """Children that have been stopped and are started again later: at ``due``, when their backoff has passed, and not
    before the processes ``resisting`` their kill have ended."""

    children: Sequence[T]
    due: float
    resisting: set[P] = attrs.field(factory=set)

    @property
    def startable_at(self) -> float:
        """When it may be started; inf while something resists."""
        return math.inf if self.resisting else self.due


def join(pending: Iterable[PendingRestart[T, P]], new: PendingRestart[T, P]) -> list[PendingRestart[T, P]]:
    """``pending`` and a new one, which takes in what is part of it: a group waits as long as any of it has to."""
    kept: list[PendingRestart[T, P]] = []
    for other in pending:
        if set(other.children) <= set(new.children):
            new.due = max(new.due, other.due)
        else:
            kept.append(other)
    return [*kept, new]


def first_due(pending: Iterable[PendingRestart[T, P]], now: float) -> PendingRestart[T, P] | None:
    """The one that may be started and has been due for longest, if any."""
    first = min(pending, key=lambda each: each.startable_at, default=None)
    return first if first is not None and first.startable_at <= now else None
