"""When a tier that failed is tried again: pure."""

from __future__ import annotations

import attrs

__all__ = ["Availability"]

_FIRST_SECONDS = 5.0
_MOST_SECONDS = 300.0


@attrs.frozen
class Availability:
    """``retry_at`` is None while the tier works, and else the time at which it is tried again."""

    failures: int = 0
    """Failures since it last worked."""
    retry_at: float | None = None

    @property
    def works(self) -> bool:
        """Whether nothing stands against using the tier."""
        return self.retry_at is None

    def failed(self, now: float) -> Availability:
        """After a failure: tried again after 5 seconds, then after twice as long each time, at most 5 minutes."""
        seconds = min(_FIRST_SECONDS * 2.0 ** min(self.failures, 16), _MOST_SECONDS)
        return Availability(self.failures + 1, now + seconds)

    def worked(self) -> Availability:
        """After something that succeeded."""
        return Availability()

    def retry_due(self, now: float) -> bool:
        """Whether it is time to try again."""
        return self.retry_at is not None and now >= self.retry_at
