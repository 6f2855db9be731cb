"""What a port tells its worker process through the environment, beside what it tells on the socket."""

from __future__ import annotations

from typing import Final

__all__ = ["SPAWNER_VARIABLE"]

SPAWNER_VARIABLE: Final = "PADDOCK_SPAWNER_PID"
"""The process id of whoever owns the port: a worker whose owner is gone ends."""
