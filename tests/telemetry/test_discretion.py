"""Words and tokens of requests are in no report of a crash and in no log line, whoever crashes and however."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio

import paddock
import supervisors as sup
from paddock.engine.batching.actor import BatchActor
from paddock.engine.machine import ModelMachine
from paddock.engine.requests import prompt as prompt_module
from paddock.engine.requests.actor import RequestActor
from paddock.engine.worker.port import Port
from paddock.sessions.server import SessionServer
from paddock.telemetry.outline import OutlinedError, outline

NEEDLE = "xylophone"
REPLY = b"quicksilver"


def failing(*values: object, **named: object) -> Any:
    """Raises what a defect would: an exception that says what it failed on."""
    raise UnicodeDecodeError("utf-8", f"{NEEDLE} {REPLY.decode()} {values!r} {named!r}".encode(), 0, 1, repr(values))


def everything(report: sup.Report) -> str:
    """All that a hook can find in a report without looking into processes."""
    lines = [report.format(), report.one_line(None), repr(report)]
    exception = getattr(report.reason, "exception", None)
    while exception is not None:
        frames = [frame for frame, _ in traceback.walk_tb(exception.__traceback__)]
        lines += [repr(exception), repr(exception.args), *(repr(frame.f_locals) for frame in frames)]
        exception = exception.__cause__ or exception.__context__
    return "\n".join(lines)


async def crash_of_batch(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(BatchActor, "_sampled", failing)


async def crash_of_request(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RequestActor, "_token", failing)


async def crash_of_request_at_its_prompt(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RequestActor, "_tokenized", failing)


async def crash_of_helper(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(prompt_module, "chain_of", failing)


async def crash_of_machine(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ModelMachine, "handle_event", failing)


async def crash_of_port(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Port, "handle_call", failing)


async def crash_of_session(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SessionServer, "handle_call", failing)


CRASHES = [value for name, value in list(globals().items()) if name.startswith("crash_of_")]


@pytest.mark.parametrize("crash", CRASHES)
async def test_neither_prompt_nor_reply_is_in_reports_and_log(
    scripted_model: Callable[..., Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    crash: Callable[[pytest.MonkeyPatch], Any],
) -> None:
    path = scripted_model(REPLY, then="repeat")
    reports: list[sup.Report] = []
    config = paddock.RuntimeConfig(state_dir=tmp_path, ram_cache_bytes=16 << 20, cache_block_tokens=16)
    with caplog.at_level(logging.INFO):
        async with paddock.open_runtime(config) as runtime:
            model = await runtime.load_model(
                path, name="one", isolation="thread", n_ctx=512, n_seq_max=2, probe_seconds=0.0
            )
            remove = sup.on_report(model.supervisor.node, reports.append)
            with monkeypatch.context() as patch:
                await crash(patch)
                with trio.move_on_after(5), suppress(paddock.PaddockError, sup.SupervisorsError):
                    if crash is crash_of_session:
                        await (await model.session("s")).say(NEEDLE)
                    else:
                        await model.complete(NEEDLE * 4, max_tokens=80)
            remove()
    assert any(isinstance(report, sup.CrashReport) for report in reports)
    text = "\n".join(map(everything, reports)) + caplog.text
    for secret in (NEEDLE, REPLY.decode()):
        assert secret not in text
    assert "UnicodeDecodeError" in text
    assert "failing" in text


def test_an_outline_has_types_and_places_and_no_words() -> None:
    try:
        try:
            failing(NEEDLE)
        except UnicodeDecodeError as error:
            raise ExceptionGroup(NEEDLE, [error, KeyError(NEEDLE)]) from error
    except ExceptionGroup as group:
        shown = outline(group)
    assert shown.kind == "ExceptionGroup of UnicodeDecodeError, KeyError"
    assert shown.frames[-1].startswith("test_discretion.py:")
    assert outline(shown) is shown
    assert isinstance(shown, OutlinedError)
    assert NEEDLE not in "".join(traceback.format_exception(shown))


async def test_the_last_words_of_a_worker_are_none_of_the_requests() -> None:
    program = f"from paddock.engine.worker import child\ntry: {{}}[{NEEDLE!r}]\nfinally: child._stopped()"
    ended = await trio.run_process(
        [sys.executable, "-c", program], capture_stdout=True, capture_stderr=True, check=False
    )
    assert b"KeyError" in ended.stderr
    assert NEEDLE.encode() not in ended.stderr
