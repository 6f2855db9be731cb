"""A worker that hangs is found, killed and replaced, whether it is stopped or its decode thread does not return."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import trio
from faults import SEEDS, faulty
from hypothesis import given
from hypothesis import strategies as st
from serving import serving

import paddock
from paddock.engine.worker.heartbeat import Pace, Patience

LONG: dict[str, Any] = {"prompt": "abc", "seed": 1, "max_tokens": 400, "ignore_eos": True}


async def test_a_stopped_worker_is_killed_and_its_requests_go_on(tiny_model_path: Path) -> None:
    async with serving(tiny_model_path, n_seq_max=2, n_ctx=1024, heartbeat_timeout=2.0) as model:
        expected = await model.complete(**LONG)
        async with model.stream(**LONG) as request:
            await request.__anext__()
            pid = (await model.statistics()).worker_pid
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            with trio.fail_after(30):
                assert await request.result() == expected
        statistics = await model.statistics()
        assert (statistics.worker_deaths, statistics.recoveries) == (1, 1)
        assert "no answer to a ping" in str(statistics.last_error)


async def test_a_step_that_takes_long_is_no_silence(tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with faulty(tiny_model_path, monkeypatch, n_seq_max=1, heartbeat_timeout=2.0) as model:
        await model.complete("abc", max_tokens=1, seed=SEEDS["slow"])
        assert (await model.statistics()).worker_deaths == 0


@pytest.mark.slow
async def test_a_request_in_which_the_decode_thread_hangs_is_found_as_poison(
    tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"heartbeat_timeout": 4.0, "step_timeout": 2.0, "step_timeout_max": 2.0}
    async with faulty(tiny_model_path, monkeypatch, n_seq_max=2, **options) as model:
        expected = await model.complete(**LONG)
        async with model.stream(**LONG) as neighbour:
            await neighbour.__anext__()
            with trio.fail_after(30), pytest.raises(paddock.PoisonRequest, match=r"a step of .* rows took longer"):
                await model.complete([400] * 90, seed=SEEDS["hang"])
            assert await neighbour.result() == expected
        assert (await model.statistics()).poisoned == 1


PATIENCE = Patience(silence=30.0, step=60.0, step_max=600.0)


@given(
    st.lists(st.tuples(st.integers(0, 512), st.floats(0, 1e4))),
    st.integers(0, 512),
    st.integers(0, 512),
)
def test_the_time_for_a_step_grows_with_its_rows_and_stays_within_its_bounds(
    steps: list[tuple[int, float]], rows: int, more: int
) -> None:
    pace = Pace(PATIENCE)
    assert pace.deadline(rows) == PATIENCE.step_max
    for step in steps:
        pace.measured(*step)
    assert PATIENCE.step <= pace.deadline(rows) <= pace.deadline(rows + more) <= PATIENCE.step_max


def test_a_step_may_take_many_times_what_its_rows_took_before() -> None:
    pace = Pace(PATIENCE)
    pace.measured(4, 8.0)
    pace.measured(100, 1.0)
    assert pace.deadline(1) == 60.0
    assert pace.deadline(10) == 400.0
    assert pace.deadline(512) == 600.0
