"""What a state machine and its loop say to each other: event types, results, actions."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import attrs

from supervisors.reasons import NORMAL, Reason

from .results import Stop

if TYPE_CHECKING:
    from supervisors.calls.call import From

Kind: TypeAlias = Literal["call", "cast", "info", "internal", "timeout", "state_timeout", "generic_timeout", "enter"]


@attrs.frozen
class EventType:
    """The type of an event. Compare with the constants: ``event_type == EventType.CALL``.

    ``EventType.GENERIC_TIMEOUT(name)`` is the type of a named timeout.
    """

    kind: Kind
    name: Hashable = None
    _from: From | None = attrs.field(default=None, eq=False, alias="from_")

    CALL: ClassVar[EventType]
    CAST: ClassVar[EventType]
    INFO: ClassVar[EventType]
    INTERNAL: ClassVar[EventType]
    TIMEOUT: ClassVar[EventType]
    STATE_TIMEOUT: ClassVar[EventType]
    ENTER: ClassVar[EventType]

    @property
    def from_(self) -> From:
        """Where to answer a call. LookupError for any other event."""
        if self._from is None:
            raise LookupError(f"a {self.kind} event has nobody to answer to")
        return self._from

    @property
    def has_from(self) -> bool:
        """True for a call."""
        return self._from is not None

    @staticmethod
    def GENERIC_TIMEOUT(name: Hashable) -> EventType:
        """The type of the timeout ``name``."""
        return EventType("generic_timeout", name)

    def __repr__(self) -> str:
        return f"<{self.kind}>" if self.name is None else f"<{self.kind} {self.name!r}>"


EventType.CALL = EventType("call")
EventType.CAST = EventType("cast")
EventType.INFO = EventType("info")
EventType.INTERNAL = EventType("internal")
EventType.TIMEOUT = EventType("timeout")
EventType.STATE_TIMEOUT = EventType("state_timeout")
EventType.ENTER = EventType("enter")


@attrs.frozen
class Event:
    """One event: its type and what it carries."""

    type: EventType
    content: Any = None


# -- actions ----------------------------------------------------------------------------------------------------


@attrs.frozen
class ReplyTo:
    """Answer a call."""

    from_: From
    value: Any = None


@attrs.frozen
class ReplyError:
    """Make the caller's `call` raise ``exception``."""

    from_: From
    exception: BaseException


@attrs.frozen
class Postpone:
    """Handle this event again after the next change of state, before newer events."""


@attrs.frozen
class NextEvent:
    """Insert an event: it is handled before anything that is queued."""

    type: EventType
    content: Any = None


@attrs.frozen
class StateTimeout:
    """A timeout that a change of state cancels. ``seconds`` of inf cancels; ``absolute`` means trio's clock."""

    seconds: float
    content: Any = None
    absolute: bool = False


@attrs.frozen
class EventTimeout:
    """A timeout that any event cancels."""

    seconds: float
    content: Any = None
    absolute: bool = False


@attrs.frozen
class GenericTimeout:
    """A named timeout; it survives everything but its own cancel, or being set again."""

    name: Hashable
    seconds: float
    content: Any = None
    absolute: bool = False


@attrs.frozen
class CancelStateTimeout:
    """Cancel the state timeout."""


@attrs.frozen
class CancelEventTimeout:
    """Cancel the event timeout."""


@attrs.frozen
class CancelTimeout:
    """Cancel the named timeout."""

    name: Hashable


@attrs.frozen
class UpdateStateTimeout:
    """Change the content of the state timeout, not its time; without one running the event comes at once."""

    content: Any


@attrs.frozen
class UpdateEventTimeout:
    """Change the content of the event timeout, not its time; without one running the event comes at once."""

    content: Any


@attrs.frozen
class UpdateTimeout:
    """Change the content of the named timeout, not its time; without one running the event comes at once."""

    name: Hashable
    content: Any


ReplyAction: TypeAlias = ReplyTo | ReplyError
TimeoutAction: TypeAlias = (
    StateTimeout
    | EventTimeout
    | GenericTimeout
    | CancelStateTimeout
    | CancelEventTimeout
    | CancelTimeout
    | UpdateStateTimeout
    | UpdateEventTimeout
    | UpdateTimeout
)
Action: TypeAlias = ReplyAction | TimeoutAction | Postpone | NextEvent

TIMEOUT_ACTIONS = (
    StateTimeout,
    EventTimeout,
    GenericTimeout,
    CancelStateTimeout,
    CancelEventTimeout,
    CancelTimeout,
    UpdateStateTimeout,
    UpdateEventTimeout,
    UpdateTimeout,
)


def valid_timeout(action: TimeoutAction) -> bool:
    """Whether the time of a timeout action is a time: a number, not NaN, not negative unless absolute."""
    if not isinstance(action, (StateTimeout, EventTimeout, GenericTimeout)):
        return True
    seconds: object = action.seconds
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or math.isnan(seconds):
        return False
    return action.absolute or seconds >= 0


# -- results of a state callback --------------------------------------------------------------------------------


@attrs.frozen
class KeepState:
    """Stay; see `keep_state`."""

    actions: tuple[Action, ...] = ()


@attrs.frozen
class NextState:
    """Go; see `next_state`."""

    state: Any
    actions: tuple[Action, ...] = ()


@attrs.frozen
class RepeatState:
    """Stay and enter again; see `repeat_state`."""

    actions: tuple[Action, ...] = ()


@attrs.frozen
class StopMachine:
    """End; see `stop_machine`."""

    reason: Reason = NORMAL
    replies: tuple[ReplyAction, ...] = ()


StateResult: TypeAlias = KeepState | NextState | RepeatState | StopMachine | Stop


def keep_state(*actions: Action) -> KeepState:
    """Stay in the state: no enter call, the state timeout goes on, nothing postponed is tried again."""
    return KeepState(actions)


def next_state(state: Any, *actions: Action) -> NextState:
    """Go to ``state``. Naming the current state is the same as `keep_state`."""
    return NextState(state, actions)


def repeat_state(*actions: Action) -> RepeatState:
    """Stay, and make the enter call again."""
    return RepeatState(actions)


def stop_machine(reason: Reason = NORMAL, *replies: ReplyAction) -> StopMachine:
    """Send the replies, run ``terminate`` and end with ``reason``."""
    return StopMachine(reason, replies)
