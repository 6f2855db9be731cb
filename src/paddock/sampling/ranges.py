"""The range of every sampling parameter in one place: the validation, the docs and the server's schema read
it.

Each range is a plain value with an ``allowed`` text; ``accept`` returns the normalised value (an ``int``
given for a number becomes a ``float``) or raises :class:`paddock.errors.InvalidParameter`. Nothing is
clamped or rounded.
"""

from __future__ import annotations

import math

import attrs

from paddock.errors import InvalidParameter

__all__ = ["Flag", "Integer", "Number", "Texts", "TokenIds"]

MAX_TOKEN_ID = 2**31 - 1


@attrs.frozen
class Number:
    """A finite float in [``low``, ``high``], or open below where ``above`` is set; ``off`` are values
    outside it.
    """

    low: float
    high: float
    off: tuple[float, ...] = ()
    above: bool = False

    @property
    def allowed(self) -> str:
        opening = "(" if self.above else "["
        extra = "".join(f", or {value:g}" for value in self.off)
        return f"a number in {opening}{self.low:g}, {self.high:g}]{extra}"

    def accept(self, parameter: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidParameter(parameter, value, self.allowed)
        try:
            number = float(value)
        except OverflowError:
            raise InvalidParameter(parameter, value, self.allowed) from None
        inside = self.low < number if self.above else self.low <= number
        if number in self.off or (math.isfinite(number) and inside and number <= self.high):
            return number
        raise InvalidParameter(parameter, value, self.allowed)


@attrs.frozen
class Integer:
    """An integer in [``low``, ``high``] (a ``bool`` is none), or None where ``optional``."""

    low: int
    high: int
    off: tuple[int, ...] = ()
    optional: bool = False

    @property
    def allowed(self) -> str:
        extra = "".join(f", or {value}" for value in self.off) + (", or None" if self.optional else "")
        inside = f"an integer in [{self.low}, {self.high}]" if self.low < self.high else str(self.low)
        return inside + extra

    def accept(self, parameter: str, value: object) -> int | None:
        if value is None and self.optional:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidParameter(parameter, value, self.allowed)
        if value in self.off or self.low <= value <= self.high:
            return int(value)
        raise InvalidParameter(parameter, value, self.allowed)


@attrs.frozen
class Flag:
    allowed: str = "true or false"

    def accept(self, parameter: str, value: object) -> bool:
        if not isinstance(value, bool):
            raise InvalidParameter(parameter, value, self.allowed)
        return value


@attrs.frozen
class Texts:
    """A string or a sequence of strings, each of 1 to ``longest`` characters or, with ``in_bytes``, UTF-8
    bytes.
    """

    most: int
    longest: int
    in_bytes: bool = False

    @property
    def allowed(self) -> str:
        unit = "UTF-8 bytes" if self.in_bytes else "characters"
        return f"a string or at most {self.most} strings, each of 1 to {self.longest} {unit}, without NUL"

    def accept(self, parameter: str, value: object) -> tuple[str, ...]:
        texts = (value,) if isinstance(value, str) else value
        if not isinstance(texts, tuple | list) or len(texts) > self.most:
            raise InvalidParameter(parameter, value, self.allowed)
        for text in texts:
            if not isinstance(text, str) or not text or "\0" in text or len(text) > self.longest:
                raise InvalidParameter(parameter, value, self.allowed)
            try:
                encoded = text.encode()
            except UnicodeEncodeError:  # a lone surrogate is no text
                raise InvalidParameter(parameter, value, self.allowed) from None
            if self.in_bytes and len(encoded) > self.longest:
                raise InvalidParameter(parameter, value, self.allowed)
        # Plain strings: what derives from str cannot be sent to a worker.
        return tuple(str.__str__(text) for text in texts)


@attrs.frozen
class TokenIds:
    """A sequence of token ids; whether the vocabulary has them is checked by ``validate_for_vocabulary``."""

    most: int

    @property
    def allowed(self) -> str:
        return f"at most {self.most} token ids of the model's vocabulary"

    def accept(self, parameter: str, value: object) -> tuple[int, ...]:
        if not isinstance(value, tuple | list | frozenset | set) or len(value) > self.most:
            raise InvalidParameter(parameter, value, self.allowed)
        ids = tuple(value)
        for token in ids:
            if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token <= MAX_TOKEN_ID:
                raise InvalidParameter(parameter, value, self.allowed)
        return tuple(sorted({int(token) for token in ids}))
