"""What one rendering of a chat template may cost, and how every value in it is measured.

A template comes with a model file, that is, from a stranger. A thread that renders it cannot be killed, and
one long operation in C holds the interpreter's lock, so a time limit alone bounds nothing. Therefore:

* every *value* is bounded: no operation that a template can reach returns, or takes, more than a linear
  factor times :attr:`Budget.value_limit`, and is refused beforehand if it would;
* every *step* is paid for out of one account that only falls, in units of about a microsecond: operations,
  loop rounds, characters and elements produced or looked at. When it is empty the rendering ends;
* the clock is looked at every 64 payments, for the machine that is slower than the units assume.

All three grow with what the caller passed in, since a long conversation may take longer than a short one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = ["CHARACTERS_PER_UNIT", "MAX_INTEGER_BITS", "Budget", "BudgetExceeded", "weigh_json"]

CHARACTERS_PER_UNIT = 16
_OVERHEAD = 16  # what a value weighs apart from its characters
_MAX_DEPTH = 64
MAX_INTEGER_BITS = 4096
_CLOCK_EVERY = 64
_CONTAINERS = (list, tuple, dict)
_Container = list[object] | tuple[object, ...] | dict[object, object]


class BudgetExceeded(Exception):
    """The rendering went beyond a bound. No ValueError or the like: Jinja would take those for a default."""


def weigh_json(value: object) -> int:
    """The weight of a JSON-like value: its characters, and 16 for each value in it."""
    if isinstance(value, str):
        return _OVERHEAD + len(value)
    if isinstance(value, Mapping):
        return _OVERHEAD + sum(weigh_json(key) + weigh_json(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return _OVERHEAD + sum(map(weigh_json, value))
    return _OVERHEAD


class Budget:
    """The account of one rendering, for one thread. ``input_weight`` is that of all that was passed in."""

    def __init__(
        self,
        input_weight: int,
        *,
        units: int = 1_000_000,
        units_per_weight: int = 32,
        value_limit: int = 1 << 20,
        value_per_weight: int = 8,
        time_limit: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.left = units + units_per_weight * input_weight
        self.value_limit = value_limit + value_per_weight * input_weight
        self._clock = clock
        self._time_limit = time_limit
        self._deadline = clock() + time_limit
        self._unwatched = _CLOCK_EVERY
        # id -> (container, weight, depth). The container is kept alive so that its id stays its own; it is
        # never changed, the sandbox sees to that. Without the memory, [x, x] repeated 50 times could not be
        # weighed.
        self._weights: dict[int, tuple[object, int, int]] = {}

    def charge(self, units: int) -> None:
        self.left -= units
        if self.left < 0:
            raise BudgetExceeded("it takes more steps than its input justifies")
        self._unwatched -= 1
        if self._unwatched == 0:
            self._unwatched = _CLOCK_EVERY
            if self._clock() > self._deadline:
                raise BudgetExceeded(f"it takes more than {self._time_limit:g} s")

    def charge_characters(self, count: int) -> None:
        self.charge(1 + count // CHARACTERS_PER_UNIT)

    def reserve(self, count: int) -> None:
        """Before ``count`` characters or elements are made: refused if too many for one value, else paid for."""
        if count > self.value_limit:
            raise BudgetExceeded(f"a value of {count} characters or elements is too large")
        self.charge_characters(count)

    def charge_for(self, *values: object) -> None:
        """Pays for looking at all of each value once."""
        for value in values:
            self.charge(1 + self.weight(value) // CHARACTERS_PER_UNIT)

    def charge_shallow(self, value: object) -> None:
        """Pays for going over the elements of a value, without looking into them."""
        self.charge(1 + (len(value) if isinstance(value, _CONTAINERS) else 0))

    def weight(self, value: object) -> int:
        """16, and for a text its characters, for a container its contents as often as they occur in it."""
        if isinstance(value, str):
            return _OVERHEAD + len(value)
        return self._container(value)[0] if isinstance(value, _CONTAINERS) else _OVERHEAD

    def depth(self, value: object) -> int:
        """How many containers deep the value is."""
        return self._container(value)[1] if isinstance(value, _CONTAINERS) else 0

    def admit(self, value: object) -> object:
        """Checks and returns a value that an operation has produced."""
        if isinstance(value, str):
            if len(value) > self.value_limit:
                raise BudgetExceeded(f"a text of {len(value)} characters is too large")
            self.charge(1)
        elif isinstance(value, _CONTAINERS):
            self._container(value)
        elif isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
            raise BudgetExceeded("an integer is too large")
        return value

    def metered(self, values: Iterable[object]) -> Iterator[object]:
        """The same values, each paid for when it is taken."""
        for value in values:
            self.charge(1)
            yield value

    def text(self, value: object) -> str:
        """``str(value)``; refused if the text would be too long."""
        if type(value) is str:
            return value
        if isinstance(value, _CONTAINERS):
            # A character may need ten in its repr; the true length is checked below.
            self.charge(self.weight(value))
        text = str(value)
        if len(text) > self.value_limit:
            raise BudgetExceeded(f"a text of {len(text)} characters is too large")
        return text

    def _container(self, value: _Container) -> tuple[int, int]:
        known = self._weights.get(id(value))
        if known is not None:
            return known[1], known[2]
        weight, depth = _OVERHEAD, 0
        items: Iterable[object]
        items = [part for pair in value.items() for part in pair] if isinstance(value, dict) else value
        count = 0
        for item in items:
            count += 1
            if isinstance(item, _CONTAINERS):
                item_weight, item_depth = self._container(item)
                weight += item_weight
                depth = max(depth, item_depth)
            else:
                weight += self.weight(item)
        self.charge(1 + count)
        depth += 1
        if depth > _MAX_DEPTH:
            raise BudgetExceeded(f"values are nested more than {_MAX_DEPTH} deep")
        if weight > self.value_limit:
            raise BudgetExceeded(f"a {type(value).__name__} of {weight} characters and elements is too large")
        self._weights[id(value)] = (value, weight, depth)
        return weight, depth
