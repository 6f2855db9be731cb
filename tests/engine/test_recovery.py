"""Streams whose worker is killed: each goes on where it was, and every byte is that of the unbroken run."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import trio
import trio.lowlevel
from killing_port import Kill, KillingPort

import paddock
from paddock.engine import machine, tree

Arguments = dict[str, Any]
KINDS = ("prefill", "decode", "restore", "save")


@pytest.fixture(params=["q8_0", "q4_k_m"])
def model_path(request: pytest.FixtureRequest) -> Path:
    name = "tiny_model_path" if request.param == "q8_0" else "tiny_k_quant_model_path"
    path: Path = request.getfixturevalue(name)
    return path


@asynccontextmanager
async def killing(path: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> AsyncIterator[paddock.Model]:
    """The model; its workers are killed by the plan that :func:`arm` gives."""

    class Planned(KillingPort):
        plan: ClassVar[deque[Kill]] = deque()
        killed: ClassVar[list[str]] = []

    monkeypatch.setattr(tree, "Port", Planned)
    options = {"n_ctx": 1024, "n_seq_max": 16, "n_threads": 1, "save_every": 64, "max_restarts": 1000, **options}
    options.setdefault("restart_period", 0.1)  # no death counts for long: each restart is immediate
    config = paddock.RuntimeConfig(ram_cache_bytes=64 << 20)
    async with paddock.open_runtime(config) as runtime:
        yield await runtime.load_model(path, name="tiny", **options)


def arm(plan: Sequence[Kill]) -> None:
    tree.Port.plan.extend(plan)  # type: ignore[attr-defined]


def killed() -> list[str]:
    kinds: list[str] = tree.Port.killed  # type: ignore[attr-defined]
    return kinds


class Favour:
    """A logits processor that would give something else if it were called twice for one token, or left out once."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, tokens: Sequence[int], logits: np.ndarray[Any, Any]) -> None:
        self.calls += 1
        logits[(len(tokens) * 7 + self.calls) % 1500 + 400] += 3.0


def mixed_streams(count: int, seed: int, longest: int) -> list[Arguments]:
    rng = random.Random(seed)
    beginnings = [[rng.randrange(300, 2048) for _ in range(200)] for _ in range(3)]
    streams: list[Arguments] = []
    for number in range(count):
        own = [rng.randrange(300, 2048) for _ in range(rng.choice([1, 5, 40, 170]))]
        arguments: Arguments = {
            "prompt": rng.choice([*beginnings, []])[: rng.choice([70, 130, 200])] + own,
            "seed": number,
            "max_tokens": rng.randrange(1, longest),
            "temperature": rng.choice([0.0, 0.8, 1.3]),
            "logprobs": rng.choice([None, 2]),
            "ignore_eos": True,
        }
        if number % 2:
            arguments["stop"] = rng.sample(["qz", "ur", "le", "xe", "o "], 2)
        if number % 5 == 0:
            arguments |= {"repeat_penalty": 1.2, "dry_multiplier": 0.8}
        if number % 7 == 3:
            arguments |= {"mirostat": 2, "temperature": 1.0}
        if number % 11 == 5:
            arguments["logits_processor"] = Favour
        streams.append(arguments)
    return streams


async def streamed(model: paddock.Model, streams: Sequence[Arguments]) -> list[paddock.Completion]:
    """All at once, some of them read slowly; what was streamed is what the completion says."""
    completions: dict[int, paddock.Completion] = {}

    async def run(number: int) -> None:
        arguments = dict(streams[number])
        if "logits_processor" in arguments:
            arguments["logits_processor"] = Favour()
        async with model.stream(**arguments) as request:
            text, tokens = "", []
            async for delta in request:
                text += delta.text
                tokens += delta.token_ids
                if number % 6 == 1:
                    await trio.sleep(0.005)
            completion = await request.result()
            assert text == completion.text
            assert tuple(tokens) == completion.token_ids[: len(tokens)]
            completions[number] = completion

    with trio.fail_after(240):
        async with trio.open_nursery() as nursery:
            for number in range(len(streams)):
                nursery.start_soon(run, number)
    return [completions[number] for number in range(len(streams))]


async def test_thirty_two_streams_are_identical_when_their_worker_is_killed_in_every_phase(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = mixed_streams(32, 1, longest=40)
    plan = [Kill("prefill", 0), Kill("save", 8), Kill("decode", 12, 0.002), Kill("restore", 2)]
    async with killing(model_path, monkeypatch, delta_buffer=4) as model:
        expected = await streamed(model, streams)
        arm(plan)
        broken = await streamed(model, streams)
        assert broken == expected
        assert killed() == [kill.kind for kill in plan]
        statistics = await model.statistics()
        assert statistics.worker_deaths == len(plan)
        assert statistics.sequences_free == 16
        assert statistics.poisoned == 0
        assert sum(completion.recoveries for completion in broken) == statistics.recovered_requests >= 16
        assert model.exactness == "canonical"


@pytest.mark.slow
async def test_twenty_kills_at_random_moments_lose_nothing_and_change_nothing(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(5)
    streams = mixed_streams(32, 5, longest=300)
    plan = [Kill(rng.choice(KINDS), rng.randrange(20, 60), rng.choice([0.0, rng.random() / 50])) for _ in range(20)]
    async with killing(model_path, monkeypatch) as model:
        expected = await streamed(model, streams)
        arm(plan)
        while tree.Port.plan:  # type: ignore[attr-defined]
            assert await streamed(model, streams) == expected
        assert len(killed()) == 20
        assert set(killed()) == set(KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
async def test_streams_are_identical_whatever_signal_their_worker_dies_of(
    tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    streams = mixed_streams(32, 2, longest=60)
    async with killing(tiny_model_path, monkeypatch) as model:
        expected = await streamed(model, streams)
        arm([Kill("decode", 20, number=number), Kill("save", 25, number=number)])
        assert await streamed(model, streams) == expected
        assert len(killed()) == 2


async def test_a_paused_stream_a_hooked_one_and_a_cancelled_one_meet_a_death_where_they_are(
    tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long: Arguments = {"prompt": [500] * 90, "seed": 3, "max_tokens": 40, "ignore_eos": True}
    async with killing(tiny_model_path, monkeypatch, n_seq_max=4, delta_buffer=3) as model:
        unbroken = await model.complete(**long)
        hooked_unbroken = await model.complete(**long, logits_processor=Favour())
        held, entered = threading.Event(), trio.Event()
        token = trio.lowlevel.current_trio_token()
        favour = Favour()

        def wait_at_the_tenth(tokens: Sequence[int], logits: np.ndarray[Any, Any]) -> None:
            if favour.calls == 9:
                token.run_sync_soon(entered.set)
                held.wait(60)
            favour(tokens, logits)

        async with (
            model.stream(**long) as paused,
            model.stream(**long, logits_processor=wait_at_the_tenth) as hooked,
            model.stream(**{**long, "max_tokens": 500}, deadline=3600.0) as cancelled,
            trio.open_nursery() as nursery,
        ):

            async def read() -> None:
                async for _ in hooked:
                    pass

            nursery.start_soon(read)
            with trio.fail_after(60):
                await entered.wait()
                while paused._spec.delivery.waiting < 3:
                    await trio.sleep(0.005)
                worker = (await model.statistics()).worker_pid
                assert worker is not None
                os.kill(worker, signal.SIGKILL)
                while not (paused.progress.recoveries and cancelled.progress.recoveries):
                    await trio.lowlevel.checkpoint()
                assert paused.progress.phase == "recovering"
                cancelled.cancel()
                with pytest.raises(paddock.RequestCancelled):
                    await cancelled.result()
                await model.wait_serving()
                held.set()
                assert await hooked.result() == hooked_unbroken
                assert favour.calls == 40
                assert await paused.result() == unbroken
        statistics = await model.statistics()
        assert (statistics.recovered_requests, statistics.cancelled, statistics.sequences_free) == (3, 1, 4)


async def test_a_deadline_goes_on_counting_while_there_is_no_worker(
    tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "restart_delay", lambda *_: 3600.0)
    async with killing(tiny_model_path, monkeypatch, n_seq_max=1) as model:
        arm([Kill("decode", 5)])
        with trio.fail_after(30), pytest.raises(paddock.DeadlineExceeded) as caught:
            await model.complete([500], max_tokens=1000, ignore_eos=True, deadline=3.0)
        assert caught.value.phase == "recovering"
        assert (await model.statistics()).state == "recovering"


async def test_beyond_the_restart_limit_everybody_is_told_why(
    tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with killing(tiny_model_path, monkeypatch, n_seq_max=1, max_restarts=0, restart_period=60.0) as model:
        arm([Kill("decode", 5)])
        with trio.fail_after(30), pytest.raises(paddock.ModelUnavailable, match="SIGKILL"):
            await model.complete([500], max_tokens=1000, ignore_eos=True)
        assert (await model.statistics()).state == "failed"
