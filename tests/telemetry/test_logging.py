from __future__ import annotations

import json
import logging
import sys

import pytest
import structlog
import trio

import supervisors as sup
from paddock.telemetry.logging import LEVELS, configure_logging

SECRET = "the text of a prompt"


@pytest.mark.parametrize("level", LEVELS)
def test_what_is_below_the_level_is_not_logged(level: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(level)
    for name in LEVELS:
        getattr(structlog.get_logger("paddock.test"), name)(f"event {name}")
    out, err = capsys.readouterr()
    assert out == ""
    assert [name for name in LEVELS if f"event {name}" in err] == list(LEVELS)[list(LEVELS).index(level) :]


def test_json_is_one_object_a_line_for_structlog_and_the_standard_library(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", renderer="json")
    structlog.get_logger("paddock.test").info("loaded", seconds=1.5)
    logging.getLogger("supervisors").warning("child %s", "gone")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert {key: first[key] for key in ("event", "seconds", "level", "logger")} == {
        "event": "loaded",
        "seconds": 1.5,
        "level": "info",
        "logger": "paddock.test",
    }
    assert (second["event"], second["level"], second["logger"]) == ("child gone", "warning", "supervisors")
    assert "timestamp" in first
    assert "timestamp" in second


def test_it_can_be_set_up_again_and_logs_once(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("warning", renderer="json")
    configure_logging("info", renderer="console")
    logging.getLogger("supervisors").info("once")
    assert capsys.readouterr().err.count("once") == 1


def test_other_loggers_are_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("debug")
    assert logging.getLogger("elsewhere").getEffectiveLevel() == logging.getLogger().level
    assert all(type(handler).__module__ != "paddock.telemetry.logging" for handler in logging.getLogger().handlers)


class _Fragile(sup.GenServer):
    def __init__(self) -> None:
        self.kept = SECRET

    async def handle_cast(self, message: object) -> None:
        raise ValueError(f"cannot digest {message}")


async def test_a_crash_is_logged_without_message_state_and_exception_text(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", renderer="json")
    async with sup.open_node() as node:
        pid = await node.start(_Fragile)
        sup.cast(pid, SECRET)
        with trio.fail_after(5):
            await sup.wait_down(pid)
    logged = capsys.readouterr().err
    assert SECRET not in logged
    report = json.loads(logged.splitlines()[0])
    assert (report["event"], report["exception_type"]) == ("process crashed", "ValueError")
    assert report["raised_at"].startswith("test_logging.py:")
    assert report["raised_at"].endswith("handle_cast")


def test_a_reader_of_stderr_that_went_away_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def write(self, _: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

        def isatty(self) -> bool:
            return False

    monkeypatch.setattr(sys, "stderr", Closed())
    configure_logging("info")
    structlog.get_logger("paddock.test").error("nobody reads this")
