"""How long a supervisor waits before it starts a child again: a plain function on values, no clock, no trio."""

from __future__ import annotations

import math
import random

import attrs

from supervisors.errors import BadFlags


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


@attrs.frozen
class Backoff:
    """Waits between restarts that grow exponentially; OTP has none, and without one nothing waits.

    Restart number n in a row (from 0) waits ``min(maximum, initial * factor ** n)`` seconds, less a random part of at
    most the fraction ``jitter``, so that children that fail together do not come back together. A child that was up
    for ``reset_after`` seconds begins at ``initial`` again. ``seed`` makes the random part repeatable.

    Each restart still counts for the supervisor's intensity, and ends the supervisor when it is one too many: choose
    ``period`` and ``maximum`` together. Raises BadFlags, whose ``field`` names what is wrong.
    """

    initial: float = 0.1
    factor: float = 2.0
    maximum: float = 30.0
    jitter: float = 0.1
    reset_after: float = 60.0
    seed: int | None = None

    def __attrs_post_init__(self) -> None:
        if not _is_number(self.initial) or self.initial <= 0:
            raise BadFlags("backoff.initial", f"{self.initial!r} is not a finite number of seconds > 0")
        if not _is_number(self.factor) or self.factor < 1:
            raise BadFlags("backoff.factor", f"{self.factor!r} is not a finite number >= 1")
        if not _is_number(self.maximum) or self.maximum < self.initial:
            raise BadFlags("backoff.maximum", f"{self.maximum!r} is not a finite number of seconds >= initial")
        if not _is_number(self.jitter) or not 0 <= self.jitter <= 1:
            raise BadFlags("backoff.jitter", f"{self.jitter!r} is not a fraction from 0 to 1")
        if self.reset_after != math.inf and (not _is_number(self.reset_after) or self.reset_after < 0):
            raise BadFlags("backoff.reset_after", f"{self.reset_after!r} is neither seconds >= 0 nor inf")
        if self.seed is not None and (isinstance(self.seed, bool) or not isinstance(self.seed, int)):
            raise BadFlags("backoff.seed", f"{self.seed!r} is neither None nor a whole number")

    def delay(self, failures: int, draw: float) -> float:
        """Seconds to wait after ``failures`` restarts in a row; ``draw`` is a random number from [0, 1)."""
        try:
            full = min(self.maximum, self.initial * self.factor**failures)
        except OverflowError:
            full = self.maximum
        return full * (1 - self.jitter * draw)

    def draw(self, place: int) -> float:
        """A random number from [0, 1); with a seed always the same for the same ``place`` in the series of draws."""
        if self.seed is None:
            return random.random()
        return random.Random(f"{self.seed} {place}").random()
