"""What may be taken: the least that the machine and the control groups have left, read from files like theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from paddock.cache import headroom as headroom_module
from paddock.cache.headroom import MemoryLimit, headroom, memory_limits, require_headroom
from paddock.errors import CacheMemoryExhausted

MIB = 1 << 20


def group(path: Path, version: int, limit: str, used: int, reclaimable: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    names = (
        ("memory.max", "memory.current", "inactive_file")
        if version == 2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    )
    (path / names[0]).write_text(f"{limit}\n")
    (path / names[1]).write_text(f"{used}\n")
    (path / "memory.stat").write_text(f"anon 5\n{names[2]} {reclaimable}\nshmem 9\n")


def membership(proc: Path, line: str) -> Path:
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(f"7:cpu:/elsewhere\n{line}\n")
    return proc


@pytest.mark.parametrize(
    ("version", "line", "root"),
    [(2, "0::/service/worker", ""), (2, "0::/service/worker", "unified"), (1, "4:memory:/service/worker", "memory")],
    ids=["version 2", "both versions mounted", "version 1"],
)
def test_a_group_and_those_above_it_bind(tmp_path: Path, version: int, line: str, root: str) -> None:
    mount = tmp_path / "cgroup"
    group(mount / root / "service" / "worker", version, "max" if version == 2 else str(2**63 - 4096), 10 * MIB, 0)
    group(mount / root / "service", version, str(100 * MIB), 70 * MIB, 20 * MIB)
    limits = memory_limits(mount, membership(tmp_path / "proc", line))
    assert [limit.headroom(MIB) for limit in limits] == [None, 30 * MIB]
    assert [limit.headroom(40 * MIB) for limit in limits] == [None, 50 * MIB]  # the file cache is looked at


def test_a_system_without_control_groups_has_no_limits(tmp_path: Path) -> None:
    assert memory_limits(tmp_path / "cgroup", tmp_path / "proc") == ()


def test_files_that_say_nothing_limit_nothing(tmp_path: Path) -> None:
    limit = MemoryLimit(tmp_path / "none", tmp_path / "none", tmp_path / "none", "inactive_file")
    assert limit.headroom(MIB) is None
    (tmp_path / "limit").write_text("garbage")
    assert MemoryLimit(tmp_path / "limit", tmp_path, tmp_path, "x").headroom(MIB) is None


def test_the_tightest_group_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group(tmp_path / "a", 2, str(300 * MIB), 100 * MIB, 0)
    group(tmp_path / "b", 2, str(200 * MIB), 100 * MIB, 30 * MIB)
    names = ("memory.max", "memory.current", "memory.stat")
    limits = tuple(MemoryLimit(*(tmp_path / name / file for file in names), "inactive_file") for name in "ab")
    monkeypatch.setattr(headroom_module, "memory_limits", lambda: limits)
    assert headroom(MIB) == 100 * MIB
    assert headroom(120 * MIB) == 130 * MIB
    require_headroom(66 * MIB)
    with pytest.raises(CacheMemoryExhausted, match="130 MiB are left"):
        require_headroom(67 * MIB)


def test_this_machine_has_some_memory_left_and_not_all_there_is() -> None:
    assert 0 < headroom(1) < 1 << 50
    with pytest.raises(CacheMemoryExhausted):
        require_headroom(1 << 50)
