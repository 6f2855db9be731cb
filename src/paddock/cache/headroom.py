"""How much memory may still be taken before the kernel ends a process for it.

Where a control group limits memory, neither a page fault nor ``fallocate`` fails at the limit: the kernel kills a
process of the group (measured on Linux 6.18, control groups version 1, for both). So whoever is about to take memory
looks first. That is no guarantee, since others take memory too; the reserve is for them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

import attrs

from paddock.errors import CacheMemoryExhausted

__all__ = ["RESERVE_BYTES", "MemoryLimit", "headroom", "memory_limits", "require_headroom"]

RESERVE_BYTES: Final = 64 << 20
"""What is left to the rest of the machine, or of the control group."""

_UNLIMITED = 1 << 60  # version 1 says "no limit" as a number near 2**63
_MOUNT = Path("/sys/fs/cgroup")
_PROC = Path("/proc")


@attrs.frozen
class MemoryLimit:
    """The files of one control group: its limit and usage in bytes, and where it says what can be reclaimed."""

    limit: Path
    usage: Path
    statistics: Path
    reclaimable: str

    def headroom(self, wanted: int) -> int | None:
        """Bytes left; None where it has no limit. What the file cache holds counts as free, but is only looked up
        when fewer than ``wanted`` bytes are left without it."""
        limit = _number(self.limit)
        if limit is None or limit >= _UNLIMITED:
            return None
        left = limit - (_number(self.usage) or 0)
        return left if left >= wanted else left + _field(self.statistics, self.reclaimable)


@cache
def memory_limits(mount: Path = _MOUNT, proc: Path = _PROC) -> tuple[MemoryLimit, ...]:
    """The control groups that this process is in, its own and those above, which bind it too."""
    found: list[MemoryLimit] = []
    for line in _text(proc / "self" / "cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        roots: tuple[Path, ...]
        if not controllers:
            roots, names = (mount, mount / "unified"), ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            roots = (mount / "memory",)
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        limit, usage, reclaimable = names
        for root in roots:
            own = root / path.lstrip("/")
            for group in (own, *own.parents):
                if not group.is_relative_to(root):
                    break
                if (group / limit).exists():
                    statistics = group / "memory.stat"
                    found.append(MemoryLimit(group / limit, group / usage, statistics, reclaimable))
    return tuple(found)


def headroom(wanted: int) -> int:
    """Bytes that may be taken now: the least that the machine and each of the control groups have left. Exact only
    where it is less than ``wanted``. Reads a few files in /proc and /sys, about 50 µs."""
    lefts = [left for limit in memory_limits() if (left := limit.headroom(wanted)) is not None]
    available = _field(_PROC / "meminfo", "MemAvailable:") * 1024
    return min(lefts + ([available] if available else [wanted]))


def require_headroom(n_bytes: int) -> None:
    """CacheMemoryExhausted where fewer than ``n_bytes`` and the reserve are left."""
    left = headroom(n_bytes + RESERVE_BYTES)
    if left < n_bytes + RESERVE_BYTES:
        raise CacheMemoryExhausted(
            n_bytes, f"{max(0, left) >> 20} MiB are left, of which {RESERVE_BYTES >> 20} stay free"
        )


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _field(path: Path, name: str) -> int:
    for line in _text(path).splitlines():
        key, *values = line.split()
        if key == name:
            return int(values[0])
    return 0
