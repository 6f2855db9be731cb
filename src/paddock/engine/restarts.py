"""When a dead worker is started again, and when its model is given up. A pure rule over the times of its deaths."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["recent_deaths", "restart_delay"]

_DELAYS = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)


def recent_deaths(deaths: Sequence[float], now: float, period: float) -> tuple[float, ...]:
    """Those deaths that lie no more than ``period`` seconds before ``now``."""
    return tuple(time for time in deaths if now - time <= period)


def restart_delay(deaths: int, max_restarts: int) -> float | None:
    """Seconds to wait before the next start after ``deaths`` recent deaths; None when the model is to be given up.

    The first restart is immediate, because most deaths are singular; later ones back off, because a worker that
    dies again at once would only burn the machine.
    """
    if deaths > max_restarts:
        return None
    return _DELAYS[min(max(deaths, 1), len(_DELAYS)) - 1]
