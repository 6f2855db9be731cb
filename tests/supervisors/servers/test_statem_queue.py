"""The event queue and the timers of a state machine, against simple models, without a clock."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import supervisors as sup
from supervisors import EventType
from supervisors.servers.statem_queue import EVENT_TIMER, STATE_TIMER, EventQueue, TimerKey, Timers
from supervisors.servers.statem_types import Event


class QueueAgainstLists(RuleBasedStateMachine):
    """The queue as one list of what comes next and one of what is postponed."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = EventQueue()
        self.next: list[int] = []
        self.postponed: list[int] = []
        self.numbers = 0

    def new(self, count: int) -> list[Event]:
        self.numbers += count
        return [Event(EventType.INTERNAL, n) for n in range(self.numbers - count, self.numbers)]

    @rule(postpone=st.booleans(), changed=st.booleans(), inserts=st.integers(0, 3))
    def transition(self, postpone: bool, changed: bool, inserts: int) -> None:
        event = self.queue.take()
        if event is None:
            (event,) = self.new(1)
            assert self.next == []
        else:
            assert event.content == self.next.pop(0), "oldest first"
        inserted = self.new(inserts)
        self.queue.settle(event, postpone=postpone, changed=changed, inserted=inserted)
        if postpone:
            self.postponed.append(event.content)
        if changed:
            self.next = self.postponed + self.next
            self.postponed = []
        self.next = [new.content for new in inserted] + self.next

    @invariant()
    def same(self) -> None:
        assert [event.content for event in self.queue.queued] == self.next
        assert [event.content for event in self.queue.postponed] == self.postponed


TestQueueAgainstLists = QueueAgainstLists.TestCase

QUICK = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestQueueAgainstLists.settings = QUICK

KEYS = [EVENT_TIMER, STATE_TIMER, TimerKey("generic", "a"), TimerKey("generic", 1)]
SECONDS = st.sampled_from([0, 0, 1, 2, 3.5, math.inf])


class TimersAgainstAModel(RuleBasedStateMachine):
    """The model: one entry per key, (deadline or None for at once, order of setting, content)."""

    def __init__(self) -> None:
        super().__init__()
        self.timers = Timers()
        self.model: dict[TimerKey, tuple[float | None, int, Any]] = {}
        self.now = 0.0
        self.order = 0

    @rule(key=st.sampled_from(KEYS), seconds=SECONDS, content=st.integers())
    def start(self, key: TimerKey, seconds: float, content: int) -> None:
        self.order += 1
        self.timers.start(key, seconds, content, False, self.now)
        self.model.pop(key, None)
        if seconds != math.inf:
            self.model[key] = (None if seconds == 0 else self.now + seconds, self.order, content)

    @rule(key=st.sampled_from(KEYS), ahead=st.integers(-2, 3), content=st.integers())
    def start_absolute(self, key: TimerKey, ahead: int, content: int) -> None:
        self.order += 1
        self.timers.start(key, self.now + ahead, content, True, self.now)
        self.model[key] = (self.now + ahead, self.order, content)

    @rule(key=st.sampled_from(KEYS))
    def cancel(self, key: TimerKey) -> None:
        self.timers.cancel(key)
        self.model.pop(key, None)

    @rule(key=st.sampled_from(KEYS), content=st.integers())
    def update(self, key: TimerKey, content: int) -> None:
        self.order += 1
        self.timers.update(key, content)
        deadline, order, _ = self.model.get(key, (None, self.order, None))
        self.model[key] = (deadline, order, content)

    @rule(seconds=st.sampled_from([0.5, 1, 2]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def take_due(self) -> None:
        event = self.timers.take_due()
        due = [(entry[1], key) for key, entry in self.model.items() if entry[0] is None]
        due.sort(key=lambda pair: pair[0])
        if not due:
            assert event is None
            return
        key = due[0][1]
        assert event == Event(key.event_type(), self.model.pop(key)[2])

    @rule()
    def take_expired(self) -> None:
        event = self.timers.take_expired(self.now)
        ended = {key: entry for key, entry in self.model.items() if entry[0] is not None and entry[0] <= self.now}
        if not ended:
            assert event is None
            return
        assert event is not None
        first = min(entry[0] for entry in ended.values() if entry[0] is not None)
        candidates = [
            key for key, entry in ended.items() if entry[0] == first and Event(key.event_type(), entry[2]) == event
        ]
        assert candidates
        del self.model[candidates[0]]

    @invariant()
    def same_deadline(self) -> None:
        deadlines = [entry[0] for entry in self.model.values() if entry[0] is not None]
        assert self.timers.next_deadline() == min(deadlines, default=math.inf)
        assert set(self.timers.due) == {key for key, entry in self.model.items() if entry[0] is None}


TestTimersAgainstAModel = TimersAgainstAModel.TestCase
TestTimersAgainstAModel.settings = QUICK


@settings(deadline=None)
@given(name=st.one_of(st.integers(), st.text()), content=st.integers())
def test_actions_reach_the_timer_they_name(name: Any, content: int) -> None:
    timers = Timers()
    key = TimerKey("generic", name)
    timers.apply(sup.GenericTimeout(name, 5, content), now=1.0)
    timers.apply(sup.StateTimeout(6, content), now=1.0)
    timers.apply(sup.EventTimeout(7, content), now=1.0)
    assert timers.running == {key: (6.0, content), STATE_TIMER: (7.0, content), EVENT_TIMER: (8.0, content)}
    timers.apply(sup.UpdateTimeout(name, -1), now=2.0)
    timers.apply(sup.UpdateStateTimeout(-2), now=2.0)
    timers.apply(sup.UpdateEventTimeout(-3), now=2.0)
    assert timers.running == {key: (6.0, -1), STATE_TIMER: (7.0, -2), EVENT_TIMER: (8.0, -3)}
    for action in (sup.CancelTimeout(name), sup.CancelStateTimeout(), sup.CancelEventTimeout()):
        timers.apply(action, now=3.0)
    assert timers.running == {}
    assert timers.next_deadline() == math.inf
