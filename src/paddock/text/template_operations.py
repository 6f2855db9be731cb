"""The filters, tests, methods and operators that a chat template may use; everything else is refused.

A list of what is allowed instead of what is forbidden: each entry is known to take time and memory linear in
its operands, or is bounded here before it runs. Where an operation differs from Jinja's it says how.
"""

from __future__ import annotations

import functools
import html
import json
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from string import Formatter
from typing import Any

from jinja2 import Undefined
from jinja2.filters import FILTERS
from jinja2.tests import TESTS

from paddock.text.template_budget import MAX_INTEGER_BITS, Budget, BudgetExceeded

__all__ = ["METHODS", "binary_operation", "call_method", "filters", "format_text", "tests"]

_MAX_SMALL = 1000  # widths, precisions, counts: what a template asks for on purpose is far below
_MAX_STRIP = 256
_MAX_DIGITS = 1000

# --- methods --------------------------------------------------------------------------------------------

_TEXT_METHODS = """
capitalize casefold center count endswith find format index isalnum isalpha isascii isdecimal isdigit islower
isnumeric isspace istitle isupper join ljust lower lstrip partition removeprefix removesuffix replace rfind rindex
rjust rpartition rsplit rstrip split splitlines startswith strip swapcase title upper zfill
"""

METHODS: dict[type, frozenset[str]] = {
    str: frozenset(_TEXT_METHODS.split()),
    dict: frozenset({"get", "items", "keys", "values"}),
    list: frozenset({"count", "index"}),
    tuple: frozenset({"count", "index"}),
}

_CONSTANT_TIME = frozenset({"endswith", "startswith"})
_STRIPS = frozenset({"lstrip", "rstrip", "strip"})
_WIDTHS = frozenset({"center", "ljust", "rjust", "zfill"})
_FORWARD_SEARCHES = frozenset({"count", "find", "index", "partition", "replace", "split"})
_BACKWARD_SEARCHES = frozenset({"rfind", "rindex", "rpartition", "rsplit"})


def call_method(budget: Budget, owner: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls one of :data:`METHODS`. Views of a dict come out as lists, whose size can be known."""
    if type(owner) is dict:
        budget.charge_shallow(owner if name != "get" else None)
    else:
        budget.charge_for(*args)
        if name not in _CONSTANT_TIME:
            budget.charge_for(owner)
    if type(owner) is str:
        needle = args[0] if args and type(args[0]) is str else ""
        if name == "format":
            return format_text(budget, owner, args, kwargs)
        if name == "join":
            return _join(budget, args[0] if args else (), owner)
        if name in _WIDTHS:
            budget.reserve(args[0] if args and type(args[0]) is int else 0)
        elif name in _STRIPS and len(needle) > _MAX_STRIP:
            raise BudgetExceeded(f"{name}() of more than {_MAX_STRIP} characters")
        elif name in _BACKWARD_SEARCHES:
            # CPython searches backwards without the two-way algorithm: length times length at worst.
            budget.charge(len(owner) * len(needle) // 1024)
        elif name in _FORWARD_SEARCHES:
            budget.charge(min(len(owner), 30_000) * min(len(needle), 100) // 1024)
        if name == "replace" and len(args) >= 2 and type(args[1]) is str:
            _reserve_replacement(budget, owner, needle, args[1])
        elif name in ("split", "rsplit", "splitlines"):
            budget.charge(1 + len(owner) // 8)
    result = getattr(owner, name)(*args, **kwargs)
    if type(owner) is dict and name != "get":
        return list(result)
    return result


def _reserve_replacement(budget: Budget, text: str, old: str, new: str) -> None:
    times = text.count(old)
    budget.reserve(len(text) + max(0, times * (len(new) - len(old))))


def _join(budget: Budget, values: Iterable[Any], separator: str) -> str:
    parts: list[str] = []
    length = 0
    for value in values:
        part = budget.text(value)
        length += len(part) + len(separator)
        budget.charge(1)
        if length > budget.value_limit:
            break  # reserve below refuses it
        parts.append(part)
    budget.reserve(length)
    return separator.join(parts)


# --- formatting -----------------------------------------------------------------------------------------

_PERCENT = re.compile(r"%(?:\([^()]*\))?[-+ #0]*(\*|\d*)(?:\.(\*|\d*))?")
_NUMBER = re.compile(r"\d+")


def _scalars(values: Iterable[Any]) -> int:
    """The longest text among values of which each has one."""
    longest = 0
    for value in values:
        if not isinstance(value, (str, int, float, bool, Undefined, type(None))):
            raise BudgetExceeded(f"formatting a {type(value).__name__}")
        longest = max(longest, len(value) * 10 if isinstance(value, str) else _MAX_DIGITS * 4)
    return longest


def _small(number: str) -> int:
    if number == "*" or len(number) > 4 or int(number or 0) > _MAX_SMALL:
        raise BudgetExceeded("a field width or precision is too large")
    return int(number or 0)


def percent_text(budget: Budget, template: str, values: Any) -> str:
    """``template % values``, for texts and numbers, with widths and precisions up to 1000."""
    given = values.values() if type(values) is dict else values if type(values) is tuple else (values,)
    longest = _scalars(given)
    for match in _PERCENT.finditer(template):
        _small(match[1])
        _small(match[2] or "")
    budget.reserve(len(template) + template.count("%") * min(longest + _MAX_SMALL, budget.value_limit))
    return str(template % values)


class _BoundedFormatter(Formatter):
    """``str.format`` without attribute access, subscripts, conversions, or large widths."""

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:
        if not re.fullmatch(r"\w*", field_name) or field_name.startswith("_"):
            raise BudgetExceeded(f"the replacement field {field_name!r} is not supported")
        key: int | str = int(field_name[:9]) if field_name.isdecimal() else field_name
        return self.get_value(key, args, kwargs), key

    def format_field(self, value: Any, format_spec: str) -> Any:
        for match in _NUMBER.finditer(format_spec):
            _small(match[0])
        return format(value, format_spec)


def format_text(budget: Budget, template: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """``template.format(*args, **kwargs)``, for texts and numbers, with widths and precisions up to 1000."""
    longest = _scalars((*args, *kwargs.values()))
    budget.reserve(len(template) + template.count("{") * min(longest + _MAX_SMALL, budget.value_limit))
    return _BoundedFormatter().vformat(template, args, kwargs)


# --- operators ------------------------------------------------------------------------------------------


def _bits(value: Any) -> int:
    return int(value).bit_length() if isinstance(value, int) else 0


def _power(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int) and _bits(left) * abs(right) > MAX_INTEGER_BITS:
        raise BudgetExceeded("an integer is too large")
    return left**right


def binary_operation(budget: Budget, symbol: str, left: Any, right: Any) -> Any:
    """``left symbol right``: refused before it is computed if the result would be too large."""
    budget.charge(1)
    if symbol == "%" and isinstance(left, str):
        return percent_text(budget, left, right)
    if symbol == "*":
        for sequence, times in ((left, right), (right, left)):
            if isinstance(sequence, (str, list, tuple)) and isinstance(times, int):
                size = len(sequence) if isinstance(sequence, str) else budget.weight(sequence)
                budget.reserve(size * max(0, times))
    elif symbol == "+" and isinstance(left, (str, list, tuple)):
        budget.reserve(budget.weight(left) + budget.weight(right))
    return budget.admit(_OPERATORS[symbol](left, right))


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": _power,
}

# --- filters --------------------------------------------------------------------------------------------

# Jinja's own, linear in their operands. `random`, `pprint`, `attr` and the HTML filters are left out on
# purpose.
_JINJA_FILTERS = """
abs capitalize count d default dictsort first groupby items last length list lower map max min reject rejectattr
reverse select selectattr sort title trim unique upper
"""
_LAZY = frozenset({"map", "reject", "rejectattr", "select", "selectattr"})  # context first, then what they run over
_FLAT = frozenset({"abs", "count", "d", "default", "first", "last", "length"})
_SHALLOW = frozenset({"items", "list", "reverse"})
_SORTS = frozenset({"dictsort", "groupby", "sort", "unique"})


def _tojson(
    budget: Budget,
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """JSON with characters as they are: no escaping for HTML, which Jinja's own filter of this name does."""
    unit = indent if isinstance(indent, int) else len(indent or "")
    extra = sum(len(part) for part in separators or ())
    if not 0 <= unit <= 16 or extra > 32:
        raise BudgetExceeded("the indent or the separators of tojson are too long")
    weight = budget.weight(value)
    budget.charge(weight // 4 + weight // 16 * unit * budget.depth(value) // 16)
    if isinstance(separators, list):
        separators = tuple(separators)
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _filter_join(budget: Budget, value: Any, d: str = "", attribute: str | int | None = None) -> str:
    items: Iterable[Any] = value
    if attribute is not None:
        items = (item[attribute] for item in value)
    return _join(budget, items, budget.text(d))


def _filter_replace(budget: Budget, value: Any, old: Any, new: Any, count: int | None = None) -> str:
    text, old, new = budget.text(value), budget.text(old), budget.text(new)
    budget.charge(min(len(text), 30_000) * min(len(old), 100) // 1024)
    _reserve_replacement(budget, text, old, new)
    return text.replace(old, new, -1 if count is None else count)


def _filter_string(budget: Budget, value: Any) -> str:
    return budget.text(value)


def _filter_escape(budget: Budget, value: Any) -> str:
    return html.escape(budget.text(value)).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")


def _filter_indent(budget: Budget, value: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    text = budget.text(value)
    prefix = width if isinstance(width, str) else " " * min(width, _MAX_SMALL + 1)
    if len(prefix) > _MAX_SMALL:
        raise BudgetExceeded("the width of indent is too large")
    budget.reserve(len(text) + (text.count("\n") + 1) * len(prefix))
    lines = (text + "\n").splitlines()
    if blank:
        text = f"\n{prefix}".join(lines)
    else:
        text = lines.pop(0)
        if lines:
            text += "\n" + "\n".join(prefix + line if line else line for line in lines)
    return prefix + text if first else text


def _filter_round(budget: Budget, value: Any, precision: int = 0, method: str = "common") -> Any:
    if not -20 <= precision <= 20:
        raise BudgetExceeded("the precision of round is too large")
    return FILTERS["round"](value, precision, method)


def _filter_sum(budget: Budget, iterable: Any, attribute: str | int | None = None, start: Any = 0) -> Any:
    total = start
    for item in iterable:
        value = item if attribute is None else item[attribute]
        if not isinstance(value, (int, float)) or not isinstance(total, (int, float)):
            raise BudgetExceeded("sum of what are no numbers")
        budget.charge(1)
        total += value
    return total


def _short(value: Any) -> Any:
    if isinstance(value, str) and len(value) > _MAX_DIGITS:
        raise BudgetExceeded(f"a number of {len(value)} characters")
    return value


def _filter_int(budget: Budget, value: Any, default: Any = 0, base: int = 10) -> Any:
    return FILTERS["int"](_short(value), default, base)


def _filter_float(budget: Budget, value: Any, default: Any = 0.0) -> Any:
    return FILTERS["float"](_short(value), default)


def _filter_format(budget: Budget, value: Any, *args: Any, **kwargs: Any) -> str:
    return percent_text(budget, budget.text(value), kwargs or args)


_OWN_FILTERS: dict[str, Callable[..., Any]] = {
    "e": _filter_escape,
    "escape": _filter_escape,
    "float": _filter_float,
    "format": _filter_format,
    "indent": _filter_indent,
    "int": _filter_int,
    "join": _filter_join,
    "replace": _filter_replace,
    "round": _filter_round,
    "safe": _filter_string,
    "string": _filter_string,
    "sum": _filter_sum,
    "tojson": _tojson,
}


def filters(current: Callable[[], Budget]) -> dict[str, Callable[..., Any]]:
    """All filters, each paid for out of ``current()`` and with its result checked."""

    def own(function: Callable[..., Any]) -> Callable[..., Any]:
        def bounded(value: Any, *args: Any, **kwargs: Any) -> Any:
            budget = current()
            budget.charge_for(*args, *kwargs.values())
            if isinstance(value, str):
                budget.charge_for(value)
            return budget.admit(function(budget, value, *args, **kwargs))

        return bounded

    def jinjas(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)  # it carries Jinja's mark that the context or the environment is passed first
        def bounded(*args: Any, **kwargs: Any) -> Any:
            budget = current()
            if name in _FLAT or name in _LAZY:
                budget.charge(1)
            elif name in _SHALLOW:
                budget.charge_shallow(args[0])
            else:
                for _ in range(8 if name in _SORTS else 1):
                    budget.charge_for(*args, *kwargs.values())
            if name == "trim" and any(isinstance(arg, str) and len(arg) > _MAX_STRIP for arg in args[1:]):
                raise BudgetExceeded(f"trim of more than {_MAX_STRIP} characters")
            if name in _LAZY:
                context, values, *rest = args
                args = (context, budget.metered(values), *rest)
            result = function(*args, **kwargs)
            return budget.metered(result) if isinstance(result, Iterator) else budget.admit(result)

        return bounded

    table = {name: jinjas(name, FILTERS[name]) for name in _JINJA_FILTERS.split()}
    table.update({name: own(function) for name, function in _OWN_FILTERS.items()})
    return table


# --- tests ----------------------------------------------------------------------------------------------

_LOOKING_TESTS = "!= < <= == > >= eq equalto ge greaterthan gt in le lessthan lower lt ne upper"
_CHEAP_TESTS = """
boolean callable defined divisibleby even false float integer iterable mapping none number odd sameas sequence
string true undefined
"""


def tests(current: Callable[[], Budget]) -> dict[str, Any]:
    """All tests; those that look into their operands are paid for."""

    def bounded(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def test(*args: Any) -> Any:
            current().charge_for(*args)
            return function(*args)

        return test

    jinjas: Mapping[str, Any] = TESTS
    table: dict[str, Any] = {name: jinjas[name] for name in _CHEAP_TESTS.split()}
    table.update({name: bounded(jinjas[name]) for name in _LOOKING_TESTS.split()})
    return table
