from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.text.stops import StopScanner


def slow_scan(stops: list[str], text: str) -> tuple[str, str | None]:
    """The rule itself: the first character at which a stop string is complete, then the longest."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            longest = max(ending, key=len)
            return text[: end - len(longest)], longest
    return text, None


def slow_hold(stops: list[str], text: str) -> int:
    """How much must be held back: the longest suffix that is a proper prefix of a stop string."""
    return max(
        (n for stop in stops for n in range(min(len(stop), len(text) + 1)) if text.endswith(stop[:n])), default=0
    )


STOPS = st.lists(st.text(alphabet="ab", min_size=1, max_size=6), max_size=6)
TEXT = st.text(alphabet="abc", max_size=40)


def chunks(text: str, cuts: list[int]) -> list[str]:
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    return [text[begin:end] for begin, end in itertools.pairwise(borders)]


@settings(max_examples=800, deadline=None)
@given(stops=STOPS, text=TEXT, cuts=st.lists(st.integers(0, 40), max_size=10))
def test_any_cut_gives_what_scanning_the_whole_gives_and_holds_back_the_least(
    stops: list[str], text: str, cuts: list[int]
) -> None:
    expected, expected_stop = slow_scan(stops, text)
    scanner = StopScanner(stops)
    emitted, seen = "", ""
    for chunk in chunks(text, cuts):
        seen += chunk
        emit, stopped = scanner.feed(chunk)
        emitted += emit
        if stopped is not None:
            break
        assert emitted == seen[: len(seen) - slow_hold(stops, seen)]
        assert scanner.held == seen[len(emitted) :]
    assert scanner.stopped == expected_stop
    assert emitted + scanner.finish() == expected


def test_a_stop_string_split_over_three_pieces_is_found_and_not_emitted() -> None:
    scanner = StopScanner(["</tool>"])
    assert scanner.feed("ok <") == ("ok ", None)
    assert scanner.feed("/to") == ("", None)
    assert scanner.feed("ol> more") == ("", "</tool>")
    assert scanner.feed("more") == ("", "</tool>")
    assert scanner.finish() == ""


def test_the_first_to_be_complete_wins_and_of_those_the_longest() -> None:
    assert StopScanner(["abcd", "bc"]).feed("xabcd") == ("xa", "bc")
    assert StopScanner(["c", "bc", "abc"]).feed("xabcd") == ("x", "abc")


def test_without_stop_strings_nothing_is_held_back() -> None:
    assert StopScanner().feed("anything") == ("anything", None)


def test_characters_with_a_meaning_in_regular_expressions_are_plain() -> None:
    for stop in ("]", "^", "-", "\\", "[a]", "a-z", "\n\n", "🦙"):
        assert StopScanner([stop, "^x", "]-\\"]).feed(f"text{stop}") == ("text", stop)


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        StopScanner(["a", ""])


@pytest.mark.parametrize("kind", ["same", "periodic", "random", "nested"])
def test_work_is_linear_for_64_stop_strings_of_1024_characters(kind: str) -> None:
    source = random.Random(7)
    stops = {
        "same": ["a" * 1023 + chr(0x100 + i) for i in range(64)],
        "periodic": ["ab" * 480 + "b" * i + "c" * (64 - i) for i in range(64)],
        "random": ["".join(source.choices("ab", k=1024)) for _ in range(64)],
        "nested": ["a" * (960 + i) + "b" * (64 - i) for i in range(64)],
    }[kind]
    text = {
        "same": "a" * 100_000,
        "periodic": ("ab" * 470 + "x") * 100,
        "random": (stops[0][:1000] + "x" + stops[1][:700]) * 50 if kind == "random" else "",
        "nested": ("a" * 900 + "b") * 100,
    }[kind]
    scanner = StopScanner(stops)
    emitted = 0
    for char in text:  # the worst cut
        emit, stopped = scanner.feed(char)
        emitted += len(emit)
        assert stopped is None
    assert emitted + len(scanner.finish()) == len(text)
    # Each character of the text, and each node that it made, costs at most two steps, plus one failure step each.
    assert scanner.transitions <= 3 * (len(text) + 64 * 1024)


def test_ordinary_text_costs_no_steps_at_all() -> None:
    scanner = StopScanner(["<|im_end|>", "</s>"])
    for _ in range(1000):
        assert scanner.feed(" plain words without the first character")[1] is None
    assert scanner.transitions == 0


def test_making_the_scanner_builds_no_automaton() -> None:
    scanner = StopScanner(["a" * 1024 + str(i) for i in range(64)])
    assert not scanner._root.children
