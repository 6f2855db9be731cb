"""What happens when workers and parents die, and when model files are not what they claim to be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio
from serving import serving

import paddock
from paddock.errors import InvalidModelFile, NotGguf, TruncatedGguf


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
async def test_requests_go_on_when_their_worker_has_died(tiny_model_path: Path, signal_number: signal.Signals) -> None:
    async with serving(tiny_model_path, n_seq_max=2, n_ctx=1024) as model:
        expected = await model.complete("abc", max_tokens=10, seed=1)
        long: dict[str, Any] = {"ignore_eos": True, "seed": 1, "max_tokens": 200}
        unbroken = await model.complete("abc", **long)
        async with (
            model.stream("abc", **long) as one,
            model.stream("abc", **long) as two,
            model.stream("abc", max_tokens=10, seed=1) as queued,
        ):
            await one.__anext__()
            await two.__anext__()
            pid = (await model.statistics()).worker_pid
            assert pid is not None
            os.kill(pid, signal_number)
            for request in (one, two):
                completion = await request.result()
                assert completion == unbroken
                assert completion.recoveries == 1
            assert await queued.result() == expected  # what was only queued notices nothing but the wait
        assert (await model.complete("abc", max_tokens=10, seed=1)) == expected
        statistics = await model.statistics()
        assert statistics.worker_pid not in (None, pid)
        assert (statistics.worker_deaths, statistics.worker_starts) == (1, 2)
        assert (statistics.recoveries, statistics.recovered_requests, statistics.failed) == (1, 2, 0)
        assert 0 < statistics.recovery_seconds < 60
        assert statistics.last_error is not None
        assert signal_number.name in statistics.last_error
        assert statistics.sequences_free == 2
        assert not psutil.pid_exists(pid)


async def test_a_worker_that_keeps_dying_takes_its_own_model_out_of_service(tiny_model_path: Path) -> None:
    async with paddock.open_runtime() as runtime:
        options: dict[str, Any] = {"n_ctx": 256, "n_seq_max": 2, "n_threads": 1}
        model = await runtime.load_model(tiny_model_path, name="dying", max_restarts=1, **options)
        healthy = await runtime.load_model(tiny_model_path, name="healthy", **options)
        for death in (1, 2):
            await model.wait_serving()
            pid = (await model.statistics()).worker_pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            with trio.fail_after(60):
                while (await model.statistics()).worker_deaths < death:
                    await trio.sleep(0.01)
        with pytest.raises(paddock.ModelUnavailable, match="SIGKILL"):
            await model.wait_serving()
        with pytest.raises(paddock.ModelUnavailable):
            await model.complete("abc")
        assert (await model.statistics()).state == "failed"
        assert (await healthy.complete("abc", max_tokens=2, seed=1)).token_ids
        await runtime.unload_model("dying")
        again = await runtime.load_model(tiny_model_path, name="dying", **options)
        assert (await again.complete("abc", max_tokens=2, seed=1)).token_ids


async def test_the_end_of_the_parent_is_the_end_of_its_workers(tiny_model_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import paddock, trio
        async def main():
            async with paddock.open_runtime() as runtime:
                model = await runtime.load_model({str(tiny_model_path)!r}, n_ctx=1024, n_seq_max=2, n_threads=1)
                async with model.stream("abc", ignore_eos=True) as request:
                    await request.__anext__()
                    print((await model.statistics()).worker_pid, flush=True)
                    async for delta in request:
                        pass
                    await trio.sleep_forever()
        trio.run(main)
        """
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        worker = int(await trio.to_thread.run_sync(parent.stdout.readline))
        assert psutil.pid_exists(worker)
        parent.send_signal(signal.SIGKILL)
        with trio.fail_after(2.0):
            while psutil.pid_exists(worker) and psutil.Process(worker).status() != psutil.STATUS_ZOMBIE:
                await trio.sleep(0.02)
    finally:
        parent.kill()
        parent.communicate()


async def test_closing_the_runtime_leaves_no_process(tiny_model_path: Path) -> None:
    before = set(psutil.Process().children(recursive=True))
    with trio.move_on_after(20) as scope:
        async with serving(tiny_model_path, n_ctx=512) as model, model.stream("abc", ignore_eos=True) as request:
            await request.__anext__()
            scope.cancel()
            await trio.sleep_forever()
    assert set(psutil.Process().children(recursive=True)) <= before


async def test_a_closed_runtime_says_so(tiny_model_path: Path) -> None:
    async with paddock.open_runtime() as runtime:
        model = await runtime.load_model(tiny_model_path, isolation="thread", n_ctx=256, n_seq_max=1)
    with pytest.raises(paddock.RuntimeClosed):
        await runtime.load_model(tiny_model_path)
    with pytest.raises(paddock.ModelNotLoaded):
        await model.complete("abc")


def _damaged(directory: Path, path: Path) -> dict[str, tuple[Path, type[Exception]]]:
    data = path.read_bytes()
    text, short, cut = directory / "text.gguf", directory / "short.gguf", directory / "cut.gguf"
    text.write_text("this is no model\n" * 100)
    short.write_bytes(data[:300])
    cut.write_bytes(data[: len(data) * 3 // 4])
    return {
        "text": (text, NotGguf),
        "short": (short, TruncatedGguf),
        "cut": (cut, TruncatedGguf),
        "folder": (directory, paddock.PaddockError),
        "missing": (directory / "missing.gguf", paddock.ModelNotFound),
        "unknown": (Path("no-such-model"), paddock.ModelNotFound),
    }


async def test_files_that_are_no_models_are_refused_by_name_and_others_load_on(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    async with paddock.open_runtime() as runtime:
        for name, (path, error) in _damaged(tmp_path, tiny_model_path).items():
            with pytest.raises(error) as caught:
                await runtime.load_model(str(path) if name == "unknown" else path)
            assert isinstance(caught.value, paddock.PaddockError)
            if isinstance(caught.value, InvalidModelFile):
                assert caught.value.path == str(path)
        assert runtime.models == {}
        model = await runtime.load_model(tiny_model_path, n_ctx=256, n_seq_max=1)
        assert (await model.complete("abc", max_tokens=1, seed=1)).token_ids


async def test_two_loads_of_one_name_at_once_give_one_model_and_one_error(tiny_model_path: Path) -> None:
    outcomes: list[str] = []
    async with paddock.open_runtime() as runtime:

        async def load() -> None:
            try:
                await runtime.load_model(tiny_model_path, name="same", n_ctx=256, n_seq_max=1)
                outcomes.append("loaded")
            except paddock.ModelAlreadyLoaded:
                outcomes.append("refused")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(load)
            nursery.start_soon(load)
        assert sorted(outcomes) == ["loaded", "refused"]
        assert (await runtime.model("same").complete("abc", max_tokens=1, seed=1)).token_ids


async def test_a_cancelled_load_is_undone(tiny_model_path: Path) -> None:
    async with paddock.open_runtime() as runtime:
        started = trio.Event()

        async def load() -> None:
            started.set()
            await runtime.load_model(tiny_model_path, name="one", n_ctx=256, n_seq_max=1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(load)
            await started.wait()
            await trio.sleep(0.15)
            nursery.cancel_scope.cancel()
        model = await runtime.load_model(tiny_model_path, name="one", n_ctx=256, n_seq_max=1)
        assert (await model.complete("abc", max_tokens=1, seed=1)).token_ids


async def test_a_body_that_raises_ends_the_runtime_with_that_error(tiny_model_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with serving(tiny_model_path, n_ctx=256, n_seq_max=1):
            raise ZeroDivisionError


async def test_a_runtime_that_closes_during_a_load_says_so(tiny_model_path: Path) -> None:
    outcomes: list[type[Exception]] = []

    async def load(runtime: paddock.Runtime, started: trio.Event) -> None:
        try:
            await runtime.load_model(tiny_model_path, n_ctx=256, n_seq_max=1, on_progress=lambda _: started.set())
        except paddock.PaddockError as error:
            outcomes.append(type(error))

    async with trio.open_nursery() as nursery, paddock.open_runtime() as runtime:
        started = trio.Event()
        nursery.start_soon(load, runtime, started)
        with trio.move_on_after(0.15):
            await started.wait()
    assert outcomes in ([paddock.RuntimeClosed], [])
