from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.cache.resume import resume_point


def flags(text: str) -> np.ndarray:
    """``p`` for a prompt token, ``g`` for a generated one."""
    return np.array([letter == "g" for letter in text], dtype=np.bool_)


@pytest.mark.parametrize(
    ("request_", "cached", "minimum", "expected"),
    [
        ("pppppppp", 8, 1, 4),  # one token must be left
        ("ppppppppp", 8, 1, 8),
        ("ppppppppp", 8, 2, 4),  # one row left of the segment is fewer than two
        ("pppppppppp", 8, 2, 8),
        ("pppppppp", 8, 6, 0),  # only at 4 or 8: neither leaves six rows
        ("ppppppppgg", 8, 6, 8),  # the segment ends there
        ("ppppppppgggg", 12, 6, 8),
        ("ppppppppggggp", 12, 6, 12),  # a segment of one begins there: computed whole
        ("ppppppppggppggggp", 12, 6, 12),  # the end of a short segment
        ("ppppppppgggppgggp", 12, 6, 8),  # inside of a short segment
        ("pppp", 4, 1, 0),
        ("p", 0, 1, 0),
        ("", 0, 1, 0),
        ("ppppppppp", 7, 1, 4),  # only whole blocks
    ],
)
def test_where_a_cached_prefix_may_end(request_: str, cached: int, minimum: int, expected: int) -> None:
    assert resume_point(flags(request_), cached, 4, minimum) == expected


def allowed(generated: list[bool], point: int, minimum: int) -> bool:
    """The rule as it is written down, in full."""
    if point == 0:
        return True
    if point >= len(generated):
        return False
    if generated[point]:
        return True
    start = end = point
    while start > 0 and not generated[start - 1]:
        start -= 1
    while end < len(generated) and not generated[end]:
        end += 1
    return start == point or end - point >= minimum


@given(st.lists(st.booleans(), max_size=40), st.integers(0, 60), st.integers(1, 5), st.integers(1, 9))
def test_it_is_the_longest_that_the_rule_allows(generated: list[bool], cached: int, block: int, minimum: int) -> None:
    point = resume_point(np.array(generated, dtype=np.bool_), cached, block, minimum)
    best = max(
        candidate
        for candidate in range(0, min(cached, max(len(generated), 0)) + 1, block)
        if allowed(generated, candidate, minimum)
    )
    assert point == best
