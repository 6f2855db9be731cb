"""Log-probabilities of a logits row."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.sampling.logprobs import log_probabilities


def test_log_probabilities_sum_to_one() -> None:
    row = np.random.default_rng(0).standard_normal(500).astype(np.float32) * 5
    total = sum(math.exp(log_probabilities(row, token, 0)[0]) for token in range(500))
    assert total == pytest.approx(1.0, abs=1e-5)


def test_alternatives_stand_by_probability_and_equal_ones_by_id() -> None:
    row = np.array([1.0, 3.0, 2.0, 3.0, -np.inf], np.float32)
    logprob, top = log_probabilities(row, 1, 3)
    assert [token for token, _ in top] == [1, 3, 2]
    assert top[0][1] == logprob
    assert [token for token, _ in log_probabilities(row, 1, 1)[1]] == [1]
    assert log_probabilities(row, 4, 5)[1][-1] == (4, -math.inf)


def test_more_alternatives_than_tokens_gives_all_tokens() -> None:
    assert len(log_probabilities(np.zeros(3, np.float32), 0, 20)[1]) == 3


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=60), st.integers(0, 20))
def test_log_probabilities_agree_with_the_plain_formula(values: list[float], alternatives: int) -> None:
    row = np.array(values, np.float32)
    exact = [float(value) for value in row]
    highest = max(exact)
    shift = highest + math.log(math.fsum(math.exp(value - highest) for value in exact))
    logprob, top = log_probabilities(row, 0, alternatives)
    assert logprob == pytest.approx(exact[0] - shift, abs=1e-4)
    order = sorted(range(len(exact)), key=lambda token: (-exact[token], token))[:alternatives]
    assert [token for token, _ in top] == order
