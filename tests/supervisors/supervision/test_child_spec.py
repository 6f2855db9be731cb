"""Child specs as values: what may be written for one, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from actors import Echo, wait_forever

import supervisors as sup
from supervisors.supervision.child_spec import as_spec


@pytest.mark.parametrize(
    ("start", "stands_for"),
    [
        (Echo, (Echo, (), {})),
        ((Echo,), (Echo, (), {})),
        ([Echo, (1,)], (Echo, (1,), {})),
        ((Echo, (1,), {"x": 2}), (Echo, (1,), {"x": 2})),
    ],
)
def test_what_is_left_out_of_a_start_is_empty(start: Any, stands_for: Any) -> None:
    assert sup.ChildSpec(id="a", start=start).start == stands_for


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"id": None, "start": Echo}, "id"),
        ({"id": [], "start": Echo}, "id"),
        ({"id": "a", "start": ()}, "start"),
        ({"id": "a", "start": (Echo, (), {}, "more")}, "start"),
        ({"id": "a", "start": (Echo, [], {})}, "start"),
        ({"id": "a", "start": (Echo, (), None)}, "start"),
        ({"id": "a", "start": "Echo"}, "start"),
        ({"id": "a", "start": dict}, "start"),
        ({"id": "a", "start": Echo, "shutdown": math.nan}, "shutdown"),
        ({"id": "a", "start": Echo, "name": ["not hashable"]}, "name"),
        ({"id": "a", "start": Echo, "label": 7}, "label"),
    ],
)
def test_a_wrong_field_is_refused_by_name(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(sup.BadChildSpec) as refused:
        sup.ChildSpec(**fields)
    assert refused.value.field == field


def test_a_bare_class_is_a_spec_and_a_number_is_none() -> None:
    assert as_spec(Echo) == sup.child(Echo)
    with pytest.raises(sup.BadChildSpec, match="7 is not a child spec"):
        as_spec(7)


def test_a_function_is_a_worker_and_a_supervisor_is_none() -> None:
    assert sup.child(wait_forever).type == "worker"
    assert sup.child(sup.DynamicSupervisor).type == "supervisor"
    assert sup.child(sup.Supervisor).shutdown == math.inf


def test_constants_show_their_names() -> None:
    assert repr(sup.BRUTAL_KILL) == "BRUTAL_KILL"
    assert repr(sup.RESTARTING) == "RESTARTING"
