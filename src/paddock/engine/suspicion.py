"""Which request brings the worker down. Pure rules over who was in flight when it died.

A death has *suspects*: the requests that the worker had work of and had not answered. Most deaths have no culprit (a
kernel short of memory, an operator), so after the first one all go on together, and each suspect is *cleared* once it
has got past what was in flight. When the worker dies again and suspects of both deaths are the same, those are tried
alone, one after another, while everybody else waits: who is cleared waits too, and whose trial kills the worker is the
culprit. The signals of a fault (SIGSEGV, SIGABRT, ...) convict at once; SIGKILL and a hang may come from outside, and
have to come twice.

So a request that kills the worker each time it is computed is found by at most :data:`MOST_FURTHER_DEATHS` deaths after
the first, however many others were suspected: one together, one or two alone. A trial that is passed costs no death,
only a restore and a few rows; a death costs the load of the model. Halving would cost a death for each halving that the
culprit is in: up to four among 16.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Final, Generic, TypeVar

import attrs

__all__ = ["MOST_FURTHER_DEATHS", "Inquiry", "Verdict", "after_death", "certain_signal", "without"]

K = TypeVar("K", bound=Hashable)

MOST_FURTHER_DEATHS: Final = 3
"""Deaths of one inquiry, beside its first, that say nothing against the model."""

_FROM_OUTSIDE: Final = ("signal SIGKILL", "it hung")


@attrs.frozen
class Inquiry(Generic[K]):
    """``suspects`` in the order in which they are tried. While ``alone``, only the first of them may run.

    ``deaths`` counts those after the first, ``strikes`` those of the suspect that is tried now.
    """

    suspects: tuple[K, ...]
    alone: bool = False
    deaths: int = 0
    strikes: int = 0

    @property
    def tried(self) -> K | None:
        """Who is alone with the worker; None while all run."""
        return self.suspects[0] if self.alone else None


@attrs.frozen
class Verdict(Generic[K]):
    """What follows from a death. ``counts``: whether it counts against the model."""

    inquiry: Inquiry[K] | None
    culprit: K | None
    counts: bool


def certain_signal(how: str) -> bool:
    """Whether a death like this comes from what the worker did. SIGKILL is sent by a kernel short of memory or by an
    operator, and one of them, or a machine with too much to do, can make it hang."""
    return not how.startswith(_FROM_OUTSIDE)


def after_death(inquiry: Inquiry[K] | None, in_flight: Sequence[K], *, certain: bool) -> Verdict[K]:
    """The next inquiry after a death with work of ``in_flight`` unanswered, in the order in which to try them."""
    known = () if inquiry is None else inquiry.suspects
    both = tuple(key for key in in_flight if key in known)
    if inquiry is None or not both:
        # Nothing that two deaths have in common: whoever was in flight is a suspect of this one.
        fresh: Inquiry[K] | None = Inquiry(tuple(in_flight)) if in_flight else None
        if inquiry is not None and (inquiry.alone or not in_flight):
            fresh = inquiry  # it died idle, or while somebody was opened who is no suspect: the trial is held again
        return Verdict(fresh, None, counts=True)
    deaths = inquiry.deaths + 1
    counts = deaths > MOST_FURTHER_DEATHS
    if not inquiry.alone:
        return Verdict(Inquiry(both, alone=True, deaths=deaths), None, counts)
    strikes = inquiry.strikes + 1
    if certain or strikes > 1:
        return Verdict(None, inquiry.suspects[0], counts)
    return Verdict(attrs.evolve(inquiry, deaths=deaths, strikes=strikes), None, counts)


def without(inquiry: Inquiry[K] | None, key: K) -> Inquiry[K] | None:
    """The inquiry without a suspect that was cleared, or has ended; None when nobody is left."""
    if inquiry is None or key not in inquiry.suspects:
        return inquiry
    left = tuple(suspect for suspect in inquiry.suspects if suspect != key)
    if not left:
        return None
    return attrs.evolve(inquiry, suspects=left, strikes=0 if inquiry.tried == key else inquiry.strikes)
