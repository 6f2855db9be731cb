"""A process of a model's subtree that crashes or is killed: who notices, with which error, and what goes on."""

from __future__ import annotations

import copy
import os
import pickle
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from serving import serving

import paddock
import supervisors as sup
from paddock.engine.requests import actor as request_module
from paddock.engine.worker.messages import TokenizeText
from paddock.errors import LogitsProcessorError, RequestProcessEnded

ENDLESS: dict[str, Any] = {"ignore_eos": True, "seed": 1}


async def process_of(model: paddock.Model, name: str) -> sup.Pid[Any]:
    child = await sup.which_child(model.supervisor, name)
    assert isinstance(child.pid, sup.Pid)
    return child.pid


async def actor_of(model: paddock.Model) -> sup.Pid[Any]:
    (child,) = await sup.which_children(await process_of(model, "requests"))
    assert isinstance(child.pid, sup.Pid)
    return child.pid


@pytest.mark.parametrize("end", [lambda pid: sup.exit(pid, sup.Killed()), lambda pid: sup.cast(pid, "rubbish")])
async def test_the_end_of_a_requests_process_is_an_error_for_its_consumer_alone(
    tiny_model_path: Path, end: Callable[[sup.Pid[Any]], None]
) -> None:
    async with serving(tiny_model_path, isolation="thread", n_seq_max=2, n_ctx=1024) as model:
        expected = await model.complete("abc", max_tokens=100, seed=1, ignore_eos=True)
        async with model.stream("abc", **ENDLESS) as request:
            await request.__anext__()
            victim = await actor_of(model)
            async with model.stream("abc", max_tokens=100, **ENDLESS) as neighbour:
                end(victim)
                with trio.fail_after(10), pytest.raises(RequestProcessEnded):
                    await request.result()
                assert await neighbour.result() == expected
        statistics = await model.statistics()
        assert (statistics.failed, statistics.sequences_free) == (1, 2)


async def test_a_helper_that_crashes_takes_its_request_with_it_and_not_the_consumers_patience(
    tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(*_: object) -> None:
        raise ZeroDivisionError

    async with serving(tiny_model_path, isolation="thread", n_seq_max=1, n_ctx=256) as model:
        with monkeypatch.context() as patched:
            patched.setattr(request_module, "tokenize_prompt", crash)
            with trio.fail_after(10), pytest.raises(RequestProcessEnded):
                await model.complete("abc")
        assert (await model.complete("abc", max_tokens=1)).token_ids


async def test_a_batch_actor_that_crashes_fails_what_ran_and_the_worker_serves_on(tiny_model_path: Path) -> None:
    async with serving(tiny_model_path, n_seq_max=1, n_ctx=1024) as model:
        expected = await model.complete("abc", max_tokens=10, seed=1)
        async with (
            model.stream("abc", **ENDLESS) as running,
            model.stream("abc", max_tokens=10, seed=1) as queued,
        ):
            await running.__anext__()
            sup.cast(await process_of(model, "batch"), "rubbish")
            with pytest.raises(paddock.WorkerDied, match="batch"):
                await running.result()
            assert await queued.result() == expected
        assert (await model.statistics()).worker_starts == 1


async def test_a_machine_that_crashes_is_waited_for(tiny_model_path: Path) -> None:
    async with paddock.open_runtime() as runtime:
        model = await runtime.load_model(tiny_model_path, name="one", isolation="thread", n_ctx=256, n_seq_max=1)
        expected = await model.complete("abc", max_tokens=3, seed=1)
        sup.exit(await process_of(model, "machine"), sup.Killed())
        with trio.fail_after(30):
            await model.wait_serving()
        assert runtime.model("one") is model
        assert await model.complete("abc", max_tokens=3, seed=1) == expected


async def test_a_model_that_was_unloaded_is_not_the_next_one_of_its_name(tiny_model_path: Path) -> None:
    async with paddock.open_runtime() as runtime:
        options: dict[str, Any] = {"name": "one", "isolation": "thread", "n_ctx": 256, "n_seq_max": 1}
        first = await runtime.load_model(tiny_model_path, **options)
        prepared = first.stream("abc", max_tokens=1)
        await runtime.unload_model("one")
        second = await runtime.load_model(tiny_model_path, **options)
        with pytest.raises(paddock.ModelNotLoaded):
            await first.complete("abc", max_tokens=1)
        with pytest.raises(paddock.ModelNotLoaded):
            await first.statistics()
        with pytest.raises(paddock.ModelNotLoaded):
            await prepared.__aenter__()
        assert (await second.complete("abc", max_tokens=1)).token_ids


async def test_a_load_that_takes_too_long_keeps_that_as_its_reason(tiny_model_path: Path) -> None:
    async with paddock.open_runtime() as runtime:
        with pytest.raises(paddock.ModelLoadFailed, match="load_timeout"):
            await runtime.load_model(tiny_model_path, name="late", n_ctx=256, load_timeout=0.1)
        model = await runtime.load_model(tiny_model_path, name="late", n_ctx=256, n_seq_max=1)
        assert (await model.complete("abc", max_tokens=1)).token_ids


async def test_a_logits_processor_that_exits_ends_its_request_and_not_the_program(tiny_model_path: Path) -> None:
    def leave(_: Sequence[int], __: np.ndarray[Any, Any]) -> None:
        raise SystemExit(3)

    async with serving(tiny_model_path, isolation="thread", n_seq_max=1, n_ctx=256) as model:
        with pytest.raises(LogitsProcessorError, match="SystemExit"):
            await model.complete("abc", logits_processor=leave)
        assert (await model.complete("abc", max_tokens=1)).token_ids


async def test_more_prompts_at_once_than_a_worker_holds_wait_for_their_turn(tiny_model_path: Path) -> None:
    async with serving(tiny_model_path, isolation="thread", n_seq_max=8, n_ctx=256, queue_limit=3000) as model:
        done: list[int] = []

        async def run(number: int) -> None:
            await model.complete("abc " * 20, max_tokens=1, seed=number)
            done.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(1500):
                nursery.start_soon(run, number)
        assert len(done) == 1500


# --- errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        paddock.QueueFull("m", 3),
        paddock.DeadlineExceeded(2.0, "decode"),
        paddock.ContextOverflow(1, 2, 3, at_least=True),
        paddock.WorkerDied("signal SIGKILL", "its last words"),
        paddock.ModelNotFound("here"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_survives_copying_and_pickling(error: paddock.PaddockError) -> None:
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)


async def test_requests_that_end_by_one_death_raise_errors_of_their_own(tiny_model_path: Path) -> None:
    errors: list[paddock.PaddockError] = []
    async with (
        serving(tiny_model_path, n_seq_max=2, n_ctx=1024, max_restarts=0) as model,
        model.stream("abc", **ENDLESS) as one,
        model.stream("abc", **ENDLESS) as two,
    ):
        await one.__anext__()
        await two.__anext__()
        sup.exit(await process_of(model, "port"), sup.Killed())
        for request in (one, two, two):
            with pytest.raises(paddock.ModelUnavailable) as caught:
                await request.result()
            errors.append(caught.value)
    assert len({id(error) for error in errors}) == 3


async def test_no_report_of_a_crash_shows_a_prompt(tiny_model_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reports: list[Any] = []
    async with serving(tiny_model_path, isolation="thread", n_seq_max=2, n_ctx=256) as model:
        remove = sup.on_report(model.supervisor.node, reports.append)
        secret = "my secret words"
        ids = await model.tokenize(secret)
        async with model.stream(secret, **ENDLESS, stop=["secret end"]) as request:
            await request.__anext__()
            sup.cast(await actor_of(model), TokenizeText(secret.encode()))
            with pytest.raises(RequestProcessEnded) as caught:
                await request.result()
        sup.cast(await process_of(model, "batch"), TokenizeText(secret.encode()))
        await model.complete("abc", max_tokens=1)
        remove()
    assert len(reports) >= 2
    shown = "".join([*(report.format() + report.one_line() for report in reports), caplog.text, repr(caught.value)])
    assert "secret" not in shown
    assert ", ".join(map(str, ids)) not in shown


async def test_a_worker_that_dies_while_a_restarted_machine_loads_is_replaced(tiny_model_path: Path) -> None:
    async with serving(tiny_model_path, n_seq_max=1, n_ctx=256) as model:
        expected = await model.complete("abc", max_tokens=3, seed=1)
        first = (await model.statistics()).worker_pid
        sup.exit(await process_of(model, "machine"), sup.Killed())
        with trio.fail_after(30):
            while (statistics := await model.statistics()).worker_pid in (None, first):
                await trio.sleep(0.005)
            assert statistics.state == "loading"
            assert statistics.worker_pid is not None
            os.kill(statistics.worker_pid, signal.SIGKILL)
            while (await model.statistics()).worker_deaths == 0:
                await trio.sleep(0.005)
            assert await model.complete("abc", max_tokens=3, seed=1) == expected
