"""Streamed text and the line end behind it, when the writing thread is left behind."""

from __future__ import annotations

import threading

import pytest
import trio
import trio.testing

from paddock.cli import output


async def test_text_that_a_cancelled_task_left_to_its_thread_never_follows_the_line_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[str] = []
    entered, release = threading.Event(), threading.Event()

    def slow(text: str) -> None:
        if text == "first":
            entered.set()
            release.wait(10)
        written.append(text)

    monkeypatch.setattr(output, "write_text", slow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(output.write_text_in_thread, "first")
        await trio.to_thread.run_sync(entered.wait)
        nursery.start_soon(output.write_text_in_thread, "second")  # waits for the first in its thread
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    threading.Timer(0.05, release.set).start()
    await trio.to_thread.run_sync(output.end_line)
    assert "second" not in written
    assert written == ["first", "\n"]


def test_a_reader_that_has_stopped_reading_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(output, "write_text", written.append)
    monkeypatch.setattr(output, "_LAST_WRITE_SECONDS", 0.01)
    with output._writing:
        output.end_line()
    assert written == []
