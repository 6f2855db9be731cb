"""A process that passes no checkpoint for too long is named, while it holds up the loop and after."""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import Any

import pytest
import trio
from actors import Echo, wait_forever

import supervisors as sup
from supervisors.nodes.stall_watch import StallWatch
from supervisors.testing import settle, virtual_clock


class Lines(logging.Handler):
    """What was logged, and an event for each of the two lines of a stall; the loop cannot wait, it stands still."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.named = threading.Event()
        self.ended = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        event = self.named if "no checkpoint" in record.getMessage() else self.ended
        event.set()

    @property
    def texts(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@pytest.fixture
def lines() -> Any:
    handler = Lines()
    logger = logging.getLogger("supervisors")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def watch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "stall watch" in thread.name]


class Stalling(sup.GenServer):
    """Holds up the loop until the watch has named it."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines

    async def handle_call(self, request: Any, from_: sup.From) -> Any:
        return sup.Reply(self.lines.named.wait(30))


def test_process_that_blocks_the_loop_is_named_with_its_stack_and_the_rest_answers_after(lines: Lines) -> None:
    async def main() -> None:
        async with sup.open_node(stall_seconds=0.1) as node:
            other = await node.start(Echo)
            pid = await node.start(Stalling, lines, name="stalling")
            assert await sup.call(pid, "stall", timeout=60) is True, "named while it stalls"
            assert await sup.call(other, 1) == 1
            assert repr(pid) in lines.texts[0]
            assert lines.records[0].stalled is pid  # type: ignore[attr-defined]
            assert "in handle_call" in lines.texts[0]
            assert lines.records[0].levelno == logging.WARNING
            while not lines.ended.is_set():
                await trio.lowlevel.checkpoint()
            assert repr(pid) in lines.texts[1]
            assert "held up all others" in lines.texts[1]
        assert len(lines.records) == 2, "once for each stall"
        assert watch_threads() == []

    trio.run(main)


def test_task_of_a_process_and_the_block_itself_are_named_too(lines: Lines) -> None:
    async def stall() -> None:
        lines.named.wait(30)

    async def with_a_task() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stall)

    async def main() -> None:
        async with sup.open_node() as node:
            pid = node.spawn(with_a_task)
            await sup.wait_down(pid)
            assert repr(pid) in lines.texts[0]
            lines.named.clear()
            lines.named.wait(30)
            assert "main" in lines.texts[-1]

    trio.run(main)


def test_a_virtual_clock_is_not_disturbed_and_sleepers_are_not_named(lines: Lines) -> None:
    async def main() -> None:
        async with sup.open_node(stall_seconds=0.01) as node:
            node.spawn(wait_forever)
            await trio.sleep(1e4)
            assert trio.current_time() == 1e4
            await settle()
            until = time.monotonic() + 0.1
            while time.monotonic() < until:
                await trio.lowlevel.checkpoint()

    trio.run(main, clock=virtual_clock())
    assert [text for text in lines.texts if "wait_forever" in text] == []


def test_it_can_be_switched_off_and_ends_with_the_node() -> None:
    async def main(seconds: float, expected: int) -> None:
        async with sup.open_node(stall_seconds=seconds):
            assert len(watch_threads()) == expected
        assert watch_threads() == []

    trio.run(main, math.inf, 0)
    trio.run(main, 0.1, 1)
    with pytest.raises(ValueError, match="stall_seconds"):
        sup.open_node(stall_seconds=0)


class Looks(StallWatch):
    """A watch without a thread that sees the steps it is given, a look each, at a time that it is told."""

    def __init__(self, seconds: float, *steps: Any) -> None:
        self.seconds = seconds
        self._interval = seconds / 4
        self._loop_thread = threading.get_ident()
        self._closed = self  # type: ignore[assignment]
        self._steps = list(steps)

    def wait(self, seconds: float) -> bool:
        return not self._steps

    def step(self) -> Any:
        return self._steps.pop(0) if self._steps else None


async def test_a_stall_is_named_once_however_long_it_lasts(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", iter(range(100)).__next__)
    step = (trio.lowlevel.current_task(), 1)
    # the second look finds the time up and looks once more, to be sure of the stack
    Looks(1, step, step, step, step, step, None)._watch()
    assert ["no checkpoint" in text for text in lines.texts] == [True, False]


async def test_a_step_that_is_over_while_its_stack_is_taken_is_not_named(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic", iter(range(100)).__next__)
    task = trio.lowlevel.current_task()
    Looks(1, (task, 1), (task, 1), (task, 2), (task, 3), None)._watch()
    assert lines.texts == []
