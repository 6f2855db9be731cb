"""The generic state machine: events, states, postponing, timeouts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

import trio

from supervisors.calls.call import ANSWERED, FAILED
from supervisors.errors import BadAction, BadReturnValue
from supervisors.introspection.system import answer_system
from supervisors.processes.mailbox import BATCH, CALL, CAST, STOP, SYSTEM, Item
from supervisors.processes.pid import AnyPid, Ignore
from supervisors.processes.process import mark_ready
from supervisors.processes.signals import ExitSignal
from supervisors.reasons import Reason

from .behaviour import IGNORE, Behaviour
from .results import Stop
from .server_loop import ServerLoop, Stopping, run_init
from .statem_queue import EVENT_TIMER, STATE_TIMER, EventQueue, Timers
from .statem_types import (
    TIMEOUT_ACTIONS,
    Action,
    Event,
    EventType,
    KeepState,
    NextEvent,
    NextState,
    Postpone,
    RepeatState,
    ReplyError,
    ReplyTo,
    StateResult,
    StopMachine,
    TimeoutAction,
    valid_timeout,
)

InitResult: TypeAlias = tuple[Any] | tuple[Any, Sequence[Action]] | Ignore | Stop


class GenStatem(Behaviour):
    """Subclass it. With ``callback_mode = "state_functions"`` (the default) a state is a string, and the method of
    that name handles its events: ``async def idle(self, event_type, content)``. With
    ``callback_mode = "handle_event_function"`` a state is any value and `handle_event` handles all events.

    A callback returns `keep_state`, `next_state`, `repeat_state`, `stop_machine` or Stop(reason). With
    ``state_enter`` it is also called on entry, with ``EventType.ENTER`` and the old state; then it may reply and set
    timeouts, nothing else. ``self.data`` is the subclass's own.
    """

    callback_mode: ClassVar[Literal["state_functions", "handle_event_function"]] = "state_functions"
    state_enter: ClassVar[bool] = False
    data: Any = None

    async def init(self) -> InitResult:
        """The first state and actions: ``("idle", [StateTimeout(5)])``; or IGNORE, or Stop(reason)."""
        raise NotImplementedError(f"{type(self).__name__} has no init")

    async def handle_event(self, event_type: EventType, content: Any, state: Any) -> StateResult:
        """Handle an event in ``handle_event_function`` mode."""
        raise NotImplementedError(f"{type(self).__name__} has no handle_event")

    async def terminate(self, reason: Reason, state: Any) -> None:
        """Clean up; called when `GenServer.terminate` would be."""

    def format_status(self) -> Any:
        """What status and crash reports show as the data; override it to hide secrets."""
        return self.data

    def format_message(self, message: Any) -> Any:
        """What status, log and crash reports show in the place of an event's content or an answer."""
        return message

    def format_reason(self, reason: Reason) -> Any:
        """What a crash report shows as the reason; see `GenServer.format_reason`."""
        return reason

    @classmethod
    async def run_behaviour(cls, pid: AnyPid, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The body of the process."""
        machine = cls(*args, **kwargs)
        result = await run_init(pid, machine)
        if result is IGNORE:
            return
        if not isinstance(result, tuple) or not 1 <= len(result) <= 2:
            raise BadReturnValue(f"{cls.__name__}.init", result)
        actions: Iterable[Action] = result[1] if len(result) == 2 else ()
        loop = _MachineLoop(pid, machine, result[0])
        step = loop.parse(actions, "init")
        mark_ready(pid)
        await loop.run(step)


class _Step:
    """What the actions of one transition add up to; replies have been sent already."""

    __slots__ = ("inserted", "postpone", "timeouts")

    def __init__(self) -> None:
        self.postpone = False
        self.inserted: list[Event] = []
        self.timeouts: list[TimeoutAction] = []


class _MachineLoop(ServerLoop):
    __slots__ = ("current", "queue", "taken", "timers")

    server: GenStatem

    def __init__(self, pid: AnyPid, server: GenStatem, state: Any) -> None:
        super().__init__(pid, server)
        self.current = state
        self.queue = EventQueue()
        self.timers = Timers()
        self.taken = 0

    async def serve(self, first: _Step) -> None:
        first.postpone = False  # there is no event to postpone yet
        await self.finish_transition(None, first, self.current, entering=True)
        while True:
            event = await self.next_event()
            if event is not None:
                await self.handle(event)

    async def terminate(self, reason: Reason) -> None:
        await self.server.terminate(reason, self.current)

    # -- where events come from

    async def next_event(self) -> Event | None:
        """The next event: inserted and postponed ones, timeouts of time 0, ended timers, the mailbox.

        None when a system message was answered instead: those overtake everything.
        """
        mailbox = self.pid.mailbox
        if self.suspended:
            return self.take_item(await mailbox.get_system())
        if mailbox.system:
            return self.take_item(await mailbox.get())
        self.taken += 1
        if self.taken >= BATCH:
            self.taken = 0
            await trio.lowlevel.checkpoint()
        event = self.queue.take()
        if event is not None:
            return event
        deadline = self.timers.next_deadline()
        if deadline == math.inf and not self.timers.due:
            return self.take_item(await mailbox.get())
        event = self.timers.take_due() or self.timers.take_expired(trio.current_time())
        if event is None:
            with trio.CancelScope(deadline=deadline):
                return self.take_item(await mailbox.get())
            event = self.timers.take_expired(trio.current_time())
        if event is not None and self.debug is not None:
            self.debug.took_up(event.type.kind, event.content)
        return event

    def take_item(self, item: Item) -> Event | None:
        kind, payload, from_ = item
        if self.debug is not None:
            self.debug.received(kind, payload, from_)
        if kind == CALL:
            return Event(EventType("call", None, from_), payload)
        if kind == CAST:
            return Event(EventType.CAST, payload)
        if kind == STOP:
            raise Stopping(payload)
        if kind == SYSTEM:
            answer_system(self, payload, from_)
            return None
        if isinstance(payload, ExitSignal) and payload.pid is not None and payload.pid is self.pid._parent:
            raise Stopping(payload.reason)
        return Event(EventType.INFO, payload)

    # -- one transition

    async def handle(self, event: Event) -> None:
        self.last = event
        call = event.type.from_ if event.type.has_from else None
        self.client = None if call is None else call.caller
        self.timers.cancel(EVENT_TIMER)
        result = await self.callback(event.type, event.content)
        if call is not None:
            call.deferred = True
        if isinstance(result, (StopMachine, Stop)):
            self.stop(result)
        if not isinstance(result, (KeepState, NextState, RepeatState)):
            raise BadReturnValue(self.where(), result)
        step = self.parse(result.actions, self.where())
        old = self.current
        if isinstance(result, NextState):
            self.current = result.state
        changed = bool(self.current != old)
        if self.debug is not None:
            self.show_transition(event, step, old)
        await self.finish_transition(event, step, old, entering=changed or isinstance(result, RepeatState))
        self.client = None

    def show_transition(self, event: Event, step: _Step, old: Any) -> None:
        debug = self.debug
        assert debug is not None
        if step.postpone:
            debug.postponed(event.type.kind, event.content)
        elif not event.type.has_from or event.type.from_.pending:
            debug.no_reply()
        if self.current != old:
            debug.changed(old, self.current)

    async def finish_transition(self, event: Event | None, step: _Step, old: Any, *, entering: bool) -> None:
        changed = event is None or bool(self.current != old)
        if changed:
            self.timers.cancel(STATE_TIMER)
        while entering and self.server.state_enter:
            result = await self.callback(EventType.ENTER, old)
            if isinstance(result, (StopMachine, Stop)):
                self.stop(result)
            if isinstance(result, NextState) and result.state == self.current:
                result = KeepState(result.actions)
            if not isinstance(result, (KeepState, RepeatState)):
                raise BadReturnValue(f"{self.where()} on enter", result)
            more = self.parse(result.actions, f"{self.where()} on enter", on_enter=True)
            step.timeouts += more.timeouts
            entering = isinstance(result, RepeatState)
        self.queue.settle(event, postpone=step.postpone, changed=changed, inserted=step.inserted)
        now = trio.current_time()
        for action in step.timeouts:
            self.timers.apply(action, now)
        if self.queue.queued:
            # an event timeout of time 0 is cancelled by the events before it
            self.timers.due.pop(EVENT_TIMER, None)

    async def callback(self, event_type: EventType, content: object) -> object:
        machine = self.server
        if machine.callback_mode == "handle_event_function":
            return await machine.handle_event(event_type, content, self.current)
        function = getattr(machine, self.current, None) if isinstance(self.current, str) else None
        if function is None:
            raise BadReturnValue(f"{type(machine).__name__}, without a function for it, as a state", self.current)
        return await function(event_type, content)

    def where(self) -> str:
        name = type(self.server).__name__
        if self.server.callback_mode == "handle_event_function":
            return f"{name}.handle_event in state {self.current!r}"
        return f"{name}.{self.current}"

    def parse(self, actions: object, where: str, *, on_enter: bool = False) -> _Step:
        """Send the replies, sort the rest; BadAction names what is not an action, or not allowed here."""
        step = _Step()
        if not isinstance(actions, (tuple, list)):
            raise BadAction(where, actions)
        for action in actions:
            if isinstance(action, ReplyTo):
                action.from_.resolve_with(ANSWERED, action.value)
            elif isinstance(action, ReplyError):
                action.from_.resolve_with(FAILED, action.exception)
            elif isinstance(action, TIMEOUT_ACTIONS) and valid_timeout(action):
                step.timeouts.append(action)
            elif isinstance(action, Postpone) and not on_enter:
                step.postpone = True
            elif (
                isinstance(action, NextEvent)
                and not on_enter
                and isinstance(action.type, EventType)
                and action.type.kind != "enter"
            ):
                step.inserted.append(Event(action.type, action.content))
            else:
                raise BadAction(where, action)
        return step

    def stop(self, result: StopMachine | Stop) -> None:
        for reply in () if isinstance(result, Stop) else result.replies:
            if isinstance(reply, ReplyTo):
                reply.from_.resolve_with(ANSWERED, reply.value)
            elif isinstance(reply, ReplyError):
                reply.from_.resolve_with(FAILED, reply.exception)
            else:
                raise BadAction(f"{self.where()}, stopping,", reply)
        raise Stopping(result.reason)

    # -- what others see

    def state(self) -> object:
        return (self.current, self.server.data)

    def replace(self, new: Any) -> object:
        self.current, self.server.data = new
        return (self.current, self.server.data)

    def show_message(self, message: Any) -> object:
        if isinstance(message, Event):
            return Event(message.type, super().show_message(message.content))
        return super().show_message(message)

    def show_state(self) -> dict[str, object]:
        timers = {key.event_type(): deadline for key, (deadline, _) in self.timers.running.items()}
        return {
            "state": self.current,
            "data": self.guarded("format_status"),
            "events": tuple(map(self.show_message, self.queue.queued)),
            "postponed": tuple(map(self.show_message, self.queue.postponed)),
            "timers": timers | {key.event_type(): 0.0 for key in self.timers.due},
        }
