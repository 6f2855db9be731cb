"""A library's logger: silent on stdout, and the application's own as soon as it has one."""

from __future__ import annotations

import subprocess
import sys

import pytest
import structlog

from paddock.telemetry.loggers import get_logger


def test_without_any_configuration_warnings_go_to_stderr_and_nothing_to_stdout() -> None:
    program = (
        "from paddock.telemetry.loggers import get_logger\n"
        "log = get_logger('paddock.test')\n"
        "log.info('not shown'); log.warning('shown', model='x')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr.strip() == "shown"


def test_fields_reach_the_standard_record(caplog: pytest.LogCaptureFixture) -> None:
    get_logger("paddock.test").warning("worker ended", model="cria", message="clashes")
    (record,) = caplog.records
    assert (record.name, record.getMessage()) == ("paddock.test", "worker ended")
    assert vars(record)["model"] == "cria"
    assert vars(record)["message_"] == "clashes"


def test_an_application_that_configures_structlog_later_gets_the_events() -> None:
    log = get_logger("paddock.test")
    structlog.configure(processors=[])
    with structlog.testing.capture_logs() as events:
        log.bind(model="cria").info("second")
    assert events == [{"event": "second", "log_level": "info", "model": "cria"}]
