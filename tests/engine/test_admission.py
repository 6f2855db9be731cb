"""Who waits, who is next, and which sequence they get; and when a dead worker is started again."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from paddock.engine.batching.admission import AdmissionQueue
from paddock.engine.batching.sequences import Lease, SequenceAllocator
from paddock.engine.plan import default_threads
from paddock.engine.restarts import recent_deaths, restart_delay


def test_the_lowest_free_sequence_goes_first_with_a_new_generation():
    allocator = SequenceAllocator(3)
    first, second, third = allocator.lease(), allocator.lease(), allocator.lease()
    assert [lease.sequence_id for lease in (first, second, third) if lease] == [0, 1, 2]
    assert allocator.lease() is None
    assert second is not None
    assert first is not None
    assert allocator.release(second)
    assert allocator.release(first)
    assert allocator.lease() == Lease(0, 2)


def test_a_lease_is_released_once_and_a_stranger_never():
    allocator = SequenceAllocator(1)
    lease = allocator.lease()
    assert lease is not None
    assert not allocator.release(Lease(0, 7))
    assert allocator.release(lease)
    assert not allocator.release(lease)
    assert allocator.free == 1


def test_who_is_ready_does_not_wait_for_who_is_not():
    queue: AdmissionQueue[str] = AdmissionQueue(8)
    for name in ("slow", "quick"):
        queue.enlist(name, 0)
    queue.make_ready("quick")
    assert queue.next() == "quick"
    assert queue.next() is None
    queue.make_ready("slow")
    assert queue.next() == "slow"


def test_somebody_who_left_is_never_next():
    queue: AdmissionQueue[str] = AdmissionQueue(8)
    queue.enlist("a", 0)
    queue.make_ready("a")
    assert queue.discard("a")
    assert not queue.discard("a")
    assert not queue.make_ready("a")
    assert queue.next() is None


def test_the_bound_counts_the_waiting_beyond_the_free_sequences():
    queue: AdmissionQueue[int] = AdmissionQueue(2)
    for key in range(3):
        assert queue.room(1)
        queue.enlist(key, 0)
    assert not queue.room(1)


class QueueModel(RuleBasedStateMachine):
    """The queue against a list that is sorted anew each time."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: AdmissionQueue[int] = AdmissionQueue(1_000_000)
        self.model: dict[int, tuple[int, int, bool]] = {}
        self.count = 0

    @rule(priority=st.integers(-2, 2), ready=st.booleans())
    def enlist(self, priority: int, ready: bool) -> None:
        self.count += 1
        self.queue.enlist(self.count, priority)
        if ready:
            self.queue.make_ready(self.count)
        self.model[self.count] = (-priority, self.count, ready)

    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        key = data.draw(st.integers(0, self.count))
        assert self.queue.discard(key) == (self.model.pop(key, None) is not None)

    @rule()
    def next(self) -> None:
        ready = sorted(place for place in self.model.values() if place[2])
        expected = ready[0][1] if ready else None
        assert self.queue.next() == expected
        if expected is not None:
            del self.model[expected]

    @invariant()
    def same_size(self) -> None:
        assert len(self.queue) == len(self.model)


TestQueueModel = QueueModel.TestCase
TestQueueModel.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)


def test_the_first_death_is_answered_at_once_and_later_ones_with_a_pause_until_the_limit():
    delays = [restart_delay(deaths, 5) for deaths in range(1, 7)]
    assert delays[0] == 0.0
    assert delays[1:5] == sorted(d for d in delays[1:5] if d is not None)
    assert delays[5] is None


@pytest.mark.parametrize(("now", "left"), [(10.0, 3), (10.5, 2), (30.0, 0)])
def test_deaths_that_lie_back_further_than_the_period_do_not_count(now: float, left: int):
    assert len(recent_deaths((1.0, 2.0, 9.0), now, 9.0)) == left


def test_a_small_model_gets_one_thread_and_a_large_one_the_cpus() -> None:
    assert default_threads(1_800_000) == 1
    assert default_threads(1 << 30) == min(16, len(os.sched_getaffinity(0)))
