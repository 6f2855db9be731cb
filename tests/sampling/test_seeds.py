"""Seeds are part of the format of saved conversations: these values must never change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.sampling import MAX_SEED, STREAM_DRAW, STREAM_XTC, resolve_seed, seeds, step_seed


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((0, 0, 0, STREAM_DRAW), 1575472925),
        ((7, 0, 0, STREAM_DRAW), 3554060824),
        ((7, 0, 1, STREAM_DRAW), 908884116),
        ((7, 1, 0, STREAM_DRAW), 3285149995),
        ((7, 0, 0, STREAM_XTC), 596230073),
        ((MAX_SEED, 3, 2**31, STREAM_XTC), 3056955971),
    ],
)
def test_the_seed_of_a_draw_is_the_same_for_ever(arguments: tuple[int, int, int, int], expected: int) -> None:
    assert step_seed(*arguments) == expected


@given(st.integers(0, MAX_SEED), st.integers(0, 2**31), st.integers(0, 2**31), st.sampled_from([0, 1]))
def test_the_seed_of_a_draw_is_never_the_one_that_means_random(seed: int, choice: int, t: int, stream: int) -> None:
    assert 0 <= step_seed(seed, choice, t, stream) < 0xFFFFFFFF


@pytest.mark.parametrize(("digest", "expected"), [("ffffffff2a000000", 42), ("ffffffffffffffff", 0)])
def test_the_forbidden_seed_is_replaced(monkeypatch: pytest.MonkeyPatch, digest: str, expected: int) -> None:
    class Fixed:
        def digest(self) -> bytes:
            return bytes.fromhex(digest)

    monkeypatch.setattr(seeds, "blake2b", lambda *_, **__: Fixed())
    assert step_seed(1, 2, 3, 0) == expected


def test_neighbouring_draws_have_unrelated_seeds() -> None:
    drawn = {step_seed(seed, 0, t, stream) for seed in range(20) for t in range(50) for stream in (0, 1)}
    assert len(drawn) == 2000


def test_an_absent_seed_is_drawn_and_a_given_one_kept() -> None:
    assert resolve_seed(5) == 5
    drawn = {resolve_seed(None) for _ in range(16)}
    assert len(drawn) > 1
    assert all(0 <= seed < 2**32 for seed in drawn)
