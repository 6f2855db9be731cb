"""llama.cpp's log through a port: levels kept, rate bounded, nothing lost in silence."""

from __future__ import annotations

from structlog.testing import capture_logs

from paddock.engine.worker.log import BURST, LINES_PER_SECOND, WorkerLog
from paddock.engine.worker.protocol import Log


def test_a_line_keeps_its_level() -> None:
    log = WorkerLog(lambda: 0.0)
    with capture_logs() as captured:
        for level in ("debug", "info", "warning", "error", "unheard-of"):
            log.write(Log(level, f"a {level} line"))
    assert [entry["log_level"] for entry in captured] == ["debug", "info", "warning", "error", "info"]
    assert captured[2]["event"] == "a warning line"


def test_a_flood_is_cut_off_and_its_length_told_as_soon_as_there_is_room() -> None:
    now = 0.0
    log = WorkerLog(lambda: now)
    with capture_logs() as captured:
        for number in range(BURST + 50):
            log.write(Log("info", str(number)))
        assert len(captured) == BURST
        now += 2 / LINES_PER_SECOND
        log.write(Log("info", "after"))
    assert [entry["event"] for entry in captured[BURST:]] == ["log lines dropped", "after"]
    assert captured[BURST]["lines"] == 50


def test_room_does_not_grow_beyond_one_burst() -> None:
    now = 0.0
    log = WorkerLog(lambda: now)
    now = 1e9
    with capture_logs() as captured:
        for number in range(BURST + 1):
            log.write(Log("info", str(number)))
    assert len(captured) == BURST
