"""Arithmetic on small numbers, as sums, in words, and in little stories.

Held-out keys name the operands (in either order for sums), so a held-out sum is in the training text in no wording at all.
"""

from __future__ import annotations

import random

from tools.cria.documents import Exchange, expand, held_out
from tools.cria.words import FOODS, NAMES, THINGS

_WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()


def _ask(rng: random.Random, sum_text: str, words: str) -> str:
    return expand(rng, rng.choice((
        f"What is {sum_text}?", f"What is {sum_text}?", f"{sum_text} = ?", f"How much is {sum_text}?", f"Calculate {sum_text}.", f"{sum_text}",
        f"What is {words}?", f"How much is {words}?", f"Can you work out {sum_text}?", f"What's {sum_text}?", f"Please compute {words}.",
    )))  # fmt: skip


def _add(rng: random.Random) -> Exchange:
    high = rng.choice((10, 20, 20, 50))
    a, b = rng.randrange(high + 1), rng.randrange(high + 1)
    if rng.random() < 0.08:
        a, b = rng.randrange(100), rng.randrange(10)
    low, top = sorted((a, b))
    return Exchange(
        "arithmetic", _ask(rng, f"{a} + {b}", f"{a} plus {b}"), f"{a} + {b} = {a + b}", f"add/{low}/{top}", f"= {a + b}"
    )


def _subtract(rng: random.Random) -> Exchange:
    high = rng.choice((10, 20, 20, 50))
    a = rng.randrange(high + 1)
    b = rng.randrange(a + 1)
    return Exchange(
        "arithmetic",
        _ask(rng, f"{a} - {b}", f"{a} minus {b}"),
        f"{a} - {b} = {a - b}",
        f"subtract/{a}/{b}",
        f"= {a - b}",
    )


def _multiply(rng: random.Random) -> Exchange:
    a, b = rng.randrange(11), rng.randrange(11)
    sign = rng.choice(("x", "*", "x"))
    return Exchange(
        "arithmetic",
        _ask(rng, f"{a} {sign} {b}", f"{a} times {b}"),
        f"{a} x {b} = {a * b}",
        f"multiply/{a}/{b}",
        f"= {a * b}",
    )


def _compare(rng: random.Random) -> Exchange:
    a, b = rng.sample(range(rng.choice((10, 30, 100)) + 1), 2)
    key = f"compare/{min(a, b)}/{max(a, b)}"
    if rng.random() < 0.6:
        question = expand(rng, f"[Which is bigger|Which number is bigger|What is more|Which is larger], {a} or {b}?")
        return Exchange(
            "arithmetic", question, f"{max(a, b)} is bigger than {min(a, b)}.", key, f"{max(a, b)} is bigger"
        )
    question = expand(rng, f"[Which is smaller|Which number is smaller|What is less], {a} or {b}?")
    return Exchange("arithmetic", question, f"{min(a, b)} is smaller than {max(a, b)}.", key, f"{min(a, b)} is smaller")


def _next(rng: random.Random) -> Exchange:
    n = rng.randrange(1, 60)
    if rng.random() < 0.6:
        question = expand(
            rng, f"[What number comes after|Which number comes after|What comes after|What is one more than] {n}?"
        )
        return Exchange("arithmetic", question, f"{n + 1} comes after {n}.", f"next/{n}", f"{n + 1} comes")
    question = expand(rng, f"[What number comes before|Which number comes before|What is one less than] {n}?")
    return Exchange("arithmetic", question, f"{n - 1} comes before {n}.", f"previous/{n}", f"{n - 1} comes")


def _parity(rng: random.Random) -> Exchange:
    n = rng.randrange(100)
    kind = "even" if n % 2 == 0 else "odd"
    question = expand(rng, f"[Is {n} even or odd?|Is {n} odd or even?|Tell me if {n} is even or odd.]")
    return Exchange("arithmetic", question, f"{n} is {kind}.", f"parity/{n}", f"is {kind}")


def _double(rng: random.Random) -> Exchange:
    n = rng.randrange(26)
    if rng.random() < 0.5:
        question = expand(rng, f"[What is double {n}?|What is twice {n}?|Double {n}, please.|What is two times {n}?]")
        return Exchange("arithmetic", question, f"{n} + {n} = {2 * n}", f"add/{n}/{n}", f"= {2 * n}")
    question = expand(rng, f"[What is half of {2 * n}?|Half of {2 * n}?|How much is half of {2 * n}?]")
    return Exchange("arithmetic", question, f"Half of {2 * n} is {n}.", f"half/{n}", f"is {n}")


def _story_sum(rng: random.Random) -> Exchange:
    a, b = rng.randrange(1, 16), rng.randrange(1, 16)
    name, other = rng.sample(NAMES, 2)
    thing = rng.choice(
        [f for f in FOODS if f.endswith("s") and f != "grass"] + [t + "s" for t in THINGS if not t.endswith(("x", "h"))]
    )
    he = rng.choice(("he", "she"))
    if rng.random() < 0.55:
        low, top = sorted((a, b))
        question = expand(rng, (
            f"{name} has {a} {thing}. [{he.capitalize()} gets {b} more|{other} gives {name} {b} more|{he.capitalize()} finds {b} more|{he.capitalize()} buys {b} more]. "
            f"How many {thing} does [{name}|{he}] have [now|]?"
        )).replace(" ?", "?")  # fmt: skip
        return Exchange(
            "arithmetic",
            question,
            f"{a} + {b} = {a + b}, so {name} has {a + b} {thing}.",
            f"add/{low}/{top}",
            f"has {a + b} {thing}",
        )
    a, b = max(a, b), min(a, b)
    question = expand(rng, (
        f"{name} has {a} {thing}. [{he.capitalize()} loses {b}|{he.capitalize()} gives {b} to {other}|{he.capitalize()} gives away {b}|{other} takes {b}]. "
        f"How many {thing} [are left|does {name} have now|does {he} have left]?"
    ))  # fmt: skip
    return Exchange(
        "arithmetic",
        question,
        f"{a} - {b} = {a - b}, so {name} has {a - b} {thing}.",
        f"subtract/{a}/{b}",
        f"has {a - b} {thing}",
    )


_KINDS = (
    _add,
    _add,
    _add,
    _add,
    _subtract,
    _subtract,
    _subtract,
    _multiply,
    _multiply,
    _compare,
    _next,
    _parity,
    _double,
    _story_sum,
    _story_sum,
)


def make_sum(rng: random.Random) -> Exchange:
    """A question of arithmetic with its answer."""
    return rng.choice(_KINDS)(rng)


def sum_lines(rng: random.Random) -> str:
    """Plain lines such as `3 + 4 = 7`, none of them held out."""
    lines: list[str] = []
    while len(lines) < 5:
        exchange = rng.choice((_add, _subtract, _multiply))(rng)
        if not held_out(exchange.key):
            lines.append(exchange.answer)
    return "\n".join(lines[: rng.randrange(1, 6)])
