"""Stop strings, found across token borders with the least possible hold-back.

The rule: text ends at the first character with which *any* stop string is complete; of several that are
complete at that same character the longest counts, so that the least text is emitted. (A stop string that
began earlier but is not complete yet does not win: to wait for it would mean to generate on past a finished
stop string.) The outcome therefore does not depend on how the text was cut into tokens. Only generated text
is searched, never the prompt.

What is held back is exactly the longest suffix of the text that is a proper prefix of some stop string: the
state of an Aho-Corasick automaton (Aho and Corasick, "Efficient string matching", 1975). Its nodes are made
only when the text reaches them, from the sorted list of stop strings, because 64 stop strings of 1024
characters have 65,536 nodes, and building those in advance would stall the event loop for a request that
meets a handful of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["StopScanner"]


class _Node:
    """A prefix of some stop strings: those with ``low <= index < high`` in the sorted list."""

    __slots__ = ("children", "depth", "fail", "high", "low", "match")

    def __init__(self, low: int, high: int, depth: int, fail: _Node | None, match: str | None) -> None:
        self.low = low
        self.high = high
        self.depth = depth
        self.fail = fail  # the longest proper suffix that is a prefix of some stop string; None for the root
        self.match = match  # the longest stop string that ends here
        self.children: dict[str, _Node | None] = {}


class StopScanner:
    """Finds the first stop string in a stream of text.

    ``feed(text)`` returns ``(emit, stopped)``: the text that is now certain, and the stop string that ended
    it, or None. Text before the stop string is emitted, the stop string and what follows it is not. After a
    stop everything fed is swallowed. ``finish()`` returns the text that was held back.

    Work is linear in the length of the text plus that of the stop strings that it touches; ``transitions``
    counts the steps of the automaton.
    """

    def __init__(self, stops: Iterable[str] = ()) -> None:
        unique = sorted(set(stops))
        if unique and unique[0] == "":
            raise ValueError("a stop string must not be empty")
        self._stops = unique
        self._root = _Node(0, len(unique), 0, None, None)
        self._state = self._root
        self._held = ""
        self._stopped: str | None = None
        first = "".join(sorted({re.escape(stop[0]) for stop in unique}))
        self._candidate = re.compile(f"[{first}]") if unique else None
        self.transitions = 0

    @property
    def stopped(self) -> str | None:
        """The stop string that was found, if one was."""
        return self._stopped

    @property
    def held(self) -> str:
        """The text that is held back: a proper prefix of some stop string."""
        return self._held

    def feed(self, text: str) -> tuple[str, str | None]:
        if self._stopped is not None:
            return "", self._stopped
        if self._candidate is None:
            return text, None
        root = self._root
        state = self._state
        at = 0
        end = len(text)
        while at < end:
            if state is root:
                # Between candidates the regular expression engine does the walking.
                found = self._candidate.search(text, at)
                if found is None:
                    break
                at = found.start()
            state = self._step(state, text[at])
            at += 1
            if state.match is not None:
                self._stopped = state.match
                whole = self._held + text[:at]
                self._state, self._held = root, ""
                return whole[: len(whole) - len(state.match)], self._stopped
        self._state = state
        if state is root:
            whole, self._held = self._held + text, ""
            return whole, None
        if state.depth >= end + len(self._held):
            # Nothing is certain yet: avoid cutting the whole hold-back anew for every token.
            self._held += text
            return "", None
        whole = self._held + text
        cut = len(whole) - state.depth
        self._held = whole[cut:]
        return whole[:cut], None

    def finish(self) -> str:
        """Ends the text: what was held back turned out to be no stop string. Empty after a stop."""
        rest, self._held = self._held, ""
        self._state = self._root
        return rest

    def _step(self, state: _Node, char: str) -> _Node:
        while True:
            self.transitions += 1
            child = self._child(state, char)
            if child is not None:
                return child
            if state.fail is None:
                return state
            state = state.fail

    def _child(self, node: _Node, char: str) -> _Node | None:
        """The node for ``node``'s prefix plus ``char``, made on the first visit; None when there is no such
        prefix.

        Making one needs its failure node, which may have to be made too, and so on. That recursion is no
        deeper than the number of stop strings: the nodes missing along one failure chain lie on different
        stop strings, because a node's own prefixes are always made before it.
        """
        try:
            return node.children[char]
        except KeyError:
            pass
        low, high = self._range(node, char)
        if low == high:
            return None  # not remembered: the text could bring any number of different characters
        depth = node.depth + 1
        fail = self._root if node.fail is None else self._step(node.fail, char)
        stop = self._stops[low]
        match = stop if len(stop) == depth else fail.match
        child = node.children[char] = _Node(low, high, depth, fail, match)
        return child

    def _range(self, node: _Node, char: str) -> tuple[int, int]:
        """Which of the sorted stop strings go on with ``char`` after ``node``'s prefix, by bisection."""
        stops, depth = self._stops, node.depth
        low, high = node.low, node.high
        if low < high and len(stops[low]) == depth:
            low += 1  # the stop string that ends here sorts first
        left, right = low, high
        while left < right:
            middle = (left + right) // 2
            if stops[middle][depth] < char:
                left = middle + 1
            else:
                right = middle
        begin, right = left, high
        while left < right:
            middle = (left + right) // 2
            if stops[middle][depth] <= char:
                left = middle + 1
            else:
                right = middle
        return begin, left
