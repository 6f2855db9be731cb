"""The event queue and the timers of a state machine: plain data, no clock of its own, no trio."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable, Sequence
from typing import Any, Final, TypeAlias

import attrs

from .statem_types import (
    CancelEventTimeout,
    CancelStateTimeout,
    CancelTimeout,
    Event,
    EventTimeout,
    EventType,
    GenericTimeout,
    StateTimeout,
    TimeoutAction,
    UpdateEventTimeout,
    UpdateStateTimeout,
)


@attrs.define(eq=False)
class EventQueue:
    """Inserted events and postponed ones that are being tried again, and those postponed still.

    Events from outside are not here: they are taken from the mailbox when ``queued`` is empty.
    """

    queued: deque[Event] = attrs.field(factory=deque)
    postponed: list[Event] = attrs.field(factory=list)

    def take(self) -> Event | None:
        """The next event to handle, or None."""
        return self.queued.popleft() if self.queued else None

    def settle(
        self,
        event: Event | None,
        *,
        postpone: bool = False,
        changed: bool = False,
        inserted: Sequence[Event] = (),
    ) -> None:
        """After ``event`` was handled: inserted events first, then, on a change of state, the postponed ones, oldest
        first (this one included), then what was queued before."""
        if postpone and event is not None:
            self.postponed.append(event)
        if changed and self.postponed:
            self.queued.extendleft(reversed(self.postponed))
            self.postponed.clear()
        if inserted:
            self.queued.extendleft(reversed(inserted))


@attrs.frozen
class TimerKey:
    """Which timer: the event timeout, the state timeout, or a named one."""

    kind: str
    name: Hashable = None

    def event_type(self) -> EventType:
        """The type of the event the timer gives."""
        if self.kind == "timeout":
            return EventType.TIMEOUT
        if self.kind == "state_timeout":
            return EventType.STATE_TIMEOUT
        return EventType.GENERIC_TIMEOUT(self.name)


EVENT_TIMER: Final = TimerKey("timeout")
STATE_TIMER: Final = TimerKey("state_timeout")

Running: TypeAlias = tuple[float, Any]
"""(deadline on trio's clock, content)."""


@attrs.define(eq=False)
class Timers:
    """The timers of one machine. A time of 0 needs no clock: it is ``due`` at once, in the order it was set."""

    running: dict[TimerKey, Running] = attrs.field(factory=dict)
    due: dict[TimerKey, Any] = attrs.field(factory=dict)

    def apply(self, action: TimeoutAction, now: float) -> None:
        """Do what one timeout action says."""
        if isinstance(action, StateTimeout):
            self.start(STATE_TIMER, action.seconds, action.content, action.absolute, now)
        elif isinstance(action, EventTimeout):
            self.start(EVENT_TIMER, action.seconds, action.content, action.absolute, now)
        elif isinstance(action, GenericTimeout):
            self.start(TimerKey("generic", action.name), action.seconds, action.content, action.absolute, now)
        elif isinstance(action, CancelStateTimeout):
            self.cancel(STATE_TIMER)
        elif isinstance(action, CancelEventTimeout):
            self.cancel(EVENT_TIMER)
        elif isinstance(action, CancelTimeout):
            self.cancel(TimerKey("generic", action.name))
        elif isinstance(action, UpdateStateTimeout):
            self.update(STATE_TIMER, action.content)
        elif isinstance(action, UpdateEventTimeout):
            self.update(EVENT_TIMER, action.content)
        else:
            self.update(TimerKey("generic", action.name), action.content)

    def start(self, key: TimerKey, seconds: float, content: object, absolute: bool, now: float) -> None:
        """Set a timer, anew if it runs; inf cancels it."""
        self.cancel(key)
        if seconds == math.inf:
            return
        if not absolute and seconds <= 0:
            self.due[key] = content
        else:
            self.running[key] = (seconds if absolute else now + seconds, content)

    def cancel(self, key: TimerKey) -> None:
        """Stop a timer; nothing happens when it does not run."""
        self.running.pop(key, None)
        self.due.pop(key, None)

    def update(self, key: TimerKey, content: object) -> None:
        """Change the content and not the time; a timer that does not run is due at once."""
        if key in self.running:
            self.running[key] = (self.running[key][0], content)
        else:
            self.due[key] = content

    def next_deadline(self) -> float:
        """When the next timer ends; inf when none runs."""
        return min((deadline for deadline, _ in self.running.values()), default=math.inf)

    def take_due(self) -> Event | None:
        """The event of the oldest timer of time 0, or None."""
        if not self.due:
            return None
        key = next(iter(self.due))
        return Event(key.event_type(), self.due.pop(key))

    def take_expired(self, now: float) -> Event | None:
        """The event of the timer that ended first, or None when none has ended by ``now``."""
        if not self.running:
            return None
        key = min(self.running, key=lambda k: self.running[k][0])
        deadline, content = self.running[key]
        if deadline > now:
            return None
        del self.running[key]
        return Event(key.event_type(), content)
