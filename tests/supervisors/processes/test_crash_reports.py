"""Crash reports, and what servers show of themselves: rows G17, G20 and L11."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
from actors import Broken, in_process
from scripted_machine import Machine
from scripted_server import Scripted, crashing

import supervisors as sup
from supervisors import keep_state
from supervisors.testing import settle


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


@pytest.mark.parametrize("reason", ["abnormal", sup.Killed(), ("tuple", 1)])
async def test_g17_other_exits_log_their_reason(node: sup.Node, reports: list[object], reason: object) -> None:
    pid = await node.start(Scripted, cast=lambda _, message: sup.Stop(message), name="named")
    sup.cast(pid, reason)
    assert await sup.wait_down(pid) == reason
    (report,) = reports
    assert isinstance(report, sup.CrashReport)
    assert (report.reason, report.last_message, report.client) == (reason, reason, None)
    assert "named" in report.one_line()
    assert repr(reason) in report.one_line()
    assert repr(reason) in report.format()
    assert "Traceback" not in report.format()


async def test_g17_report_of_a_supervised_server_is_complete(node: sup.Node, reports: list[object]) -> None:
    flags = sup.SupervisorFlags(intensity=9)
    spec = sup.child(Scripted, cast=crashing, id="child")
    root = await node.start(sup.Supervisor, flags, [spec], label="root")
    for restarts in range(3):
        pid = (await sup.which_child(root, "child")).pid
        assert isinstance(pid, sup.Pid)
        friend = node.spawn(link_and_wait, pid)
        await sup.log_events(pid)
        await settle()
        sup.cast(pid, {"deep": [[["message"]]]})
        sup.cast(pid, "left behind")
        await sup.wait_down(friend)
        await settle()
        crashes = [report for report in reports if isinstance(report, sup.CrashReport)]
        assert len(crashes) == restarts + 1, "one crash is one report: the linked process has none"
        report = crashes[-1]
        assert report.pid is pid
        assert report.restarts == restarts
        assert report.ancestors == (root,)
        assert report.neighbours == (friend,)
        assert report.queue_length == 1
        assert report.started_as.endswith("Scripted")
        (line,) = report.log
        assert "got cast" in str(line)
        assert f"restarts: {restarts}" in report.format()
        assert f"restarts {restarts}" in report.one_line()
        assert "got cast" in report.format()
        assert "message" in report.one_line(None)
        assert "message" not in report.one_line(1).split("last message")[1]
        assert "\n" not in report.one_line(None)


async def link_and_wait(pid: sup.Pid[Any]) -> None:
    sup.link(pid)
    await trio.sleep_forever()


async def test_g17_crash_of_a_nursery_in_a_handler_is_one_report_of_one_exception(
    node: sup.Node, reports: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    async def handle(server: Scripted, message: Any) -> None:
        async with trio.open_nursery() as outer, trio.open_nursery() as inner:
            inner.start_soon(raise_broken)
            outer.start_soon(trio.sleep_forever)

    pid = await node.start(Scripted, cast=handle)
    sup.cast(pid, 1)
    await sup.wait_down(pid)
    (report,) = reports
    assert isinstance(report, sup.CrashReport)
    assert isinstance(report.reason, sup.Crashed)
    assert isinstance(report.reason.exception, Broken)
    assert "Group" not in report.format()
    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], Broken)


async def raise_broken() -> None:
    raise Broken("in a nursery")


async def test_g17_crash_in_terminate_after_a_crash_is_one_report_with_both(
    node: sup.Node, reports: list[object]
) -> None:
    def failing(*_: Any) -> None:
        raise ValueError("in terminate")

    pid = await node.start(Scripted, cast=crashing, terminate=failing)
    sup.cast(pid, 1)
    await sup.wait_down(pid)
    (report,) = reports
    assert isinstance(report, sup.CrashReport)
    text = report.format()
    assert "in terminate" in text
    assert "Broken: handler" in text, "the first error is the context of the second"


async def test_l11_report_of_a_supervised_plain_process(node: sup.Node, reports: list[object]) -> None:
    flags = sup.SupervisorFlags(intensity=1)
    root = await node.start(sup.Supervisor, flags, [sup.child(raise_when_told, id="child")], label="root")
    for _ in range(2):
        pid = (await sup.which_child(root, "child")).pid
        assert isinstance(pid, sup.Pid)
        friend = node.spawn(link_and_wait, pid)
        await settle()
        sup.send(pid, "now")
        await sup.wait_down(pid)
        await settle()
    crashes = [report for report in reports if isinstance(report, sup.CrashReport)]
    assert [report.restarts for report in crashes] == [0, 1]
    last = crashes[-1]
    assert (last.pid, last.ancestors, last.neighbours) == (pid, (root,), (friend,))
    assert last.started_as.endswith("raise_when_told")
    assert (last.last_message, last.state, last.client, last.log) == (None, None, None, ())
    for fact in (repr(root), repr(friend), "raise_when_told", "Broken: in a nursery"):
        assert fact in last.format()


async def test_l11_report_of_what_a_supervisor_started_beside_its_children(
    node: sup.Node, reports: list[object]
) -> None:
    class Spawning(sup.Supervisor):
        def init(self) -> Any:
            sup.spawn(raise_when_told, label="beside")
            return sup.SupervisorFlags(), []

    root = await node.start(Spawning)
    (beside,) = [info.pid for info in sup.tree(root).children]
    assert beside is not None
    sup.send(beside, "now")
    await sup.wait_down(beside)
    (report,) = reports
    assert isinstance(report, sup.CrashReport)
    assert (report.restarts, report.ancestors) == (0, (root,))


async def raise_when_told() -> None:
    await sup.receive()
    await raise_broken()


async def test_a_value_whose_repr_raises_spoils_no_report(node: sup.Node, reports: list[object]) -> None:
    class Unprintable:
        def __repr__(self) -> str:
            raise Broken("repr")

    pid = await node.start(Scripted, cast=crashing)
    sup.cast(pid, Unprintable())
    await sup.wait_down(pid)
    (report,) = reports
    assert isinstance(report, sup.CrashReport)
    assert "<repr of Unprintable raised Broken>" in report.format()
    assert "<repr of Unprintable raised Broken>" in report.one_line(None)


SECRET = "password"


class Hiding(Scripted):
    """Hides what it is sent, its state and its reason."""

    def format_status(self) -> Any:
        return "hidden state"

    def format_message(self, message: Any) -> Any:
        return "hidden message"

    def format_reason(self, reason: object) -> Any:
        return "hidden reason"


class HidingMachine(Machine):
    def format_status(self) -> Any:
        return "hidden data"

    def format_message(self, message: Any) -> Any:
        return "hidden message"

    def format_reason(self, reason: object) -> Any:
        return "hidden reason"


def spill(*args: Any) -> Any:
    if args[-1] == "crash" or "crash" in args:
        raise Broken(SECRET)
    return keep_state(sup.Postpone()) if isinstance(args[0], Machine) else None


@pytest.mark.parametrize("kind", ["server", "machine"])
async def test_g20_secrets_are_hidden_in_status_log_trace_and_crash_report(
    node: sup.Node, kind: str, reports: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "supervisors.trace")
    pid: sup.Pid[Any]
    if kind == "server":
        pid = await node.start(Hiding, cast=spill)
        (await sup.get_state(pid)).key = SECRET
    else:
        pid = await node.start(HidingMachine, spill, sup.GenericTimeout("t", 50, SECRET))
        (await sup.get_state(pid))[1].append(SECRET)
    await sup.log_events(pid)
    await sup.trace(pid)
    sup.cast(pid, SECRET)
    await settle()
    status = await sup.get_status(pid)
    assert "hidden" in str(status)
    assert "hidden message" in str(status["log"])
    sup.cast(pid, "crash")
    reason = await sup.wait_down(pid)
    assert isinstance(reason, sup.Crashed), "the process ends with the reason itself"
    (report,) = reports
    assert isinstance(report, sup.CrashReport)
    assert report.reason == "hidden reason"
    for text in (str(status), report.format(), report.one_line(None), caplog.text):
        assert SECRET not in text
    assert "hidden message" in report.one_line()
    assert "hidden message" in caplog.text


@pytest.mark.parametrize("kind", [Scripted, Machine])
async def test_g20_formatter_that_raises_hurts_nobody_and_shows_nothing(
    node: sup.Node, kind: Any, reports: list[object]
) -> None:
    class Faulty(kind):  # type: ignore[misc]
        def format_status(self) -> Any:
            raise Broken(SECRET)

        def format_message(self, message: Any) -> Any:
            raise Broken(SECRET)

        def format_reason(self, reason: object) -> Any:
            raise Broken(SECRET)

    pid = await (node.start(Faulty, cast=spill) if kind is Scripted else node.start(Faulty, spill))
    await sup.log_events(pid)
    sup.cast(pid, SECRET)
    await settle()
    status = await sup.get_status(pid)
    assert "<format_status raised Broken>" in str(status)
    assert "<format_message raised Broken>" in str(status["log"])
    assert pid.alive
    sup.cast(pid, "crash")
    await sup.wait_down(pid)
    (report,) = reports
    assert isinstance(report, sup.CrashReport)
    assert report.reason == "<format_reason raised Broken>"
    assert "<format_message raised Broken>" in report.one_line()
    assert SECRET not in str(status) + report.format()
