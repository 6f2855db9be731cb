"""What a certificate says follows from its checks."""

from __future__ import annotations

import msgspec
import pytest

from paddock.native.exactness.certificate import Certificate, CheckResult, Outcome


def certificate(*checks: CheckResult, thread_counts: tuple[int, ...] = (1, 2)) -> Certificate:
    return Certificate(
        recipe="canonical",
        checks=checks,
        weights={"q8_0": 30},
        parameters={"n_ctx": "512"},
        build="b",
        model="m",
        thread_counts=thread_counts,
        seconds=0.5,
    )


@pytest.mark.parametrize(
    ("outcomes", "holds"),
    [
        (["passed", "passed"], True),
        (["passed", "not_applicable"], True),
        (["passed", "failed"], False),
        (["passed", "not_run"], False),
    ],
)
def test_it_holds_when_every_check_that_applies_was_run_and_passed(outcomes: list[Outcome], holds: bool) -> None:
    made = certificate(*(CheckResult(f"check {at}", outcome, 296) for at, outcome in enumerate(outcomes)))
    assert made.holds == holds


def test_a_failure_is_named_before_what_was_not_run() -> None:
    failed = CheckResult("neighbours", "failed", 25, "other logits")
    made = certificate(CheckResult("chunks", "not_run"), failed, CheckResult("sequence_id", "passed", 30))
    assert made.shortfall == failed


def test_another_number_of_threads_narrows_it_and_does_not_void_it() -> None:
    made = certificate(CheckResult("chunks", "passed", 296), CheckResult("threads", "failed", 291), thread_counts=(4,))
    assert made.holds
    assert made.threads_matter
    assert not certificate(CheckResult("chunks", "passed", 296)).threads_matter


def test_it_is_said_of_the_shortest_context_that_a_check_reached() -> None:
    made = certificate(
        CheckResult("chunks", "passed", 30),
        CheckResult("neighbours", "passed", 296),
        CheckResult("threads", "passed", 8),
        CheckResult("sequence_id", "not_applicable"),
    )
    assert made.tokens == 30


def test_it_travels_and_is_kept_as_it_is() -> None:
    made = certificate(CheckResult("chunks", "failed", 25, "why"))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(made), type=Certificate) == made
    assert msgspec.json.decode(msgspec.json.encode(made), type=Certificate) == made
