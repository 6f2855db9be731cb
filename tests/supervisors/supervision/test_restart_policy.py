"""The pure decisions of a supervisor, against their obvious slow definitions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import supervisors as sup
from supervisors.supervision.restart_policy import RestartWindow, affected_children, after_exit, shuts_down

STEPS = st.lists(st.integers(0, 40).map(lambda n: n / 4), max_size=60)


@settings(deadline=None)
@given(intensity=st.integers(0, 5), period=st.integers(1, 20).map(lambda n: n / 4), steps=STEPS)
def test_window_refuses_exactly_when_more_than_intensity_lie_within_the_period(
    intensity: int, period: float, steps: list[float]
) -> None:
    window = RestartWindow(intensity, period)
    times: list[float] = []
    now = 0.0
    for step in steps:
        now += step
        times.append(now)
        within = [time for time in times if time >= now - period]
        allowed = window.add(now)
        assert allowed is (len(within) <= intensity)
        if not allowed:
            return  # the supervisor has ended
        assert len(window.times) <= intensity + 1, "bounded, however long it runs"


@settings(deadline=None)
@given(
    strategy=st.sampled_from(["one_for_one", "one_for_all", "rest_for_one"]),
    size=st.integers(1, 8),
    data=st.data(),
)
def test_affected_children_contain_the_failed_one_and_keep_the_order(strategy: Any, size: int, data: Any) -> None:
    children = list(range(size))
    failed = data.draw(st.sampled_from(children))
    affected = list(affected_children(strategy, children, failed))
    assert failed in affected
    assert affected == sorted(affected)
    expected = {"one_for_one": [failed], "one_for_all": children, "rest_for_one": children[failed:]}
    assert affected == expected[strategy]


@pytest.mark.parametrize(
    ("restart", "reason", "then"),
    [
        ("permanent", sup.Normal(), "restart"),
        ("permanent", sup.Killed(), "restart"),
        ("transient", sup.Normal(), "keep"),
        ("transient", sup.Shutdown("x"), "keep"),
        ("transient", sup.Killed(), "restart"),
        ("temporary", sup.Killed(), "remove"),
        ("temporary", sup.Normal(), "remove"),
    ],
)
def test_after_exit(restart: Any, reason: object, then: str) -> None:
    assert after_exit(restart, reason) == then


@settings(deadline=None)
@given(
    auto=st.sampled_from(["never", "any_significant", "all_significant"]),
    significant=st.booleans(),
    others=st.booleans(),
)
def test_shuts_down(auto: Any, significant: bool, others: bool) -> None:
    expected = significant and (auto == "any_significant" or (auto == "all_significant" and not others))
    assert shuts_down(auto, significant, others) is expected


def test_the_window_remembers_no_more_than_makes_too_many() -> None:
    window = RestartWindow(1, 10)
    assert [window.add(now) for now in (0, 1, 2, 3)] == [True, False, False, False]
    assert list(window.times) == [2, 3]
