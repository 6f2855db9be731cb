"""Crash reports, and what servers show of themselves: rows G17, G20 and L11."""

from __future__ import annotations

from typing import Any

import pytest
from actors import Broken, Echo, in_process
from scripted_server import Scripted, crashing

import supervisors as sup


@pytest.mark.parametrize("reason", [sup.Normal(), sup.Shutdown(), sup.Shutdown("x")])
async def test_g17_orderly_exits_log_no_crash(
    node: sup.Node, reports: list[object], caplog: pytest.LogCaptureFixture, reason: object
) -> None:
    pid = await node.start(Scripted, cast=lambda _, message: sup.Stop(message))
    sup.cast(pid, reason)
    assert await sup.wait_down(pid) == reason
    assert reports == []
    assert caplog.records == []


async def test_g17_crash_report_names_everything_once(
    node: sup.Node, reports: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    pid = await node.start(Scripted, call=crashing)

    async def client() -> sup.Pid[Any]:
        with pytest.raises(sup.ServerExited):
            await sup.call(pid, "fatal request")
        return sup.self()

    caller = await in_process(node, client)
    (report,) = reports
    assert isinstance(report, sup.CrashReport)
    assert report.pid is pid
    assert report.last_message == "fatal request"
    assert report.client is caller
    assert isinstance(report.state, dict)
    assert "Scripted" in report.started_as
    assert "Broken" in report.format()
    assert "crashing" in report.format(), "the traceback"
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.report is report  # type: ignore[attr-defined]


async def test_g20_format_status_hides_and_a_faulty_one_hurts_nobody(node: sup.Node, reports: list[object]) -> None:
    class Hiding(Echo):
        secret = "password"

        def format_status(self) -> Any:
            return "hidden"

    class Faulty(Echo):
        def format_status(self) -> Any:
            raise Broken("format")

    hiding, faulty = await node.start(Hiding), await node.start(Faulty)
    assert (await sup.get_status(hiding))["state"] == "hidden"
    assert "Broken" in str((await sup.get_status(faulty))["state"])
    assert await sup.call(faulty, 1) == 1
    for pid in (hiding, faulty):
        sup.cast(pid, "crash")
        await sup.wait_down(pid)
    assert next(getattr(report, "state", None) for report in reports) == "hidden"
    assert len(reports) == 2
