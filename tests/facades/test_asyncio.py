"""What is particular to asyncio: its cancellation, its loops, its threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

import paddock.aio

Options = dict[str, Any]
Scripted = Callable[..., Path]


@pytest.fixture
def endless(scripted_model: Scripted, small: Options) -> Callable[[], Any]:
    """A context manager: a model that never stops by itself, in a runtime."""

    @asynccontextmanager
    async def serving() -> AsyncIterator[paddock.aio.Model]:
        async with paddock.aio.open_runtime() as runtime:
            path = scripted_model(b"for ever ", then="repeat")
            yield await runtime.load_model(path, name="endless", **{**small, "n_ctx": 4096})

    return serving


async def assert_one_was_cancelled(model: paddock.aio.Model) -> None:
    statistics = await model.statistics()
    assert (statistics.submitted, statistics.cancelled, statistics.running) == (1, 1, 0)
    assert statistics.sequences_free == statistics.sequences


def test_a_cancelled_task_goes_on_once_its_completion_is_cancelled(endless: Callable[[], Any]) -> None:
    async def main() -> None:
        async with endless() as model:
            task = asyncio.create_task(model.complete("hi"))
            while (await model.statistics()).running == 0:
                pass
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await assert_one_was_cancelled(model)

    asyncio.run(main())


def test_a_timeout_cancels_a_completion_and_a_stream(endless: Callable[[], Any]) -> None:
    async def main() -> None:
        async with endless() as model:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(model.complete("hi"), 0.05)
            await assert_one_was_cancelled(model)

            async def read() -> None:
                async with asyncio.timeout(0.2), model.stream("hi") as request:
                    while True:
                        await request.__anext__()

            with pytest.raises(TimeoutError):
                await read()
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            statistics = await model.statistics()
            assert statistics.cancelled == 2
            assert statistics.sequences_free == statistics.sequences

    asyncio.run(main())


def test_a_task_cancelled_twice_still_waits_for_its_request_to_end(endless: Callable[[], Any]) -> None:
    async def main() -> None:
        async with endless() as model:
            streaming = asyncio.Event()

            async def stream() -> None:
                async with model.stream("hi") as request:
                    async for _ in request:
                        streaming.set()

            task = asyncio.create_task(stream())
            await streaming.wait()
            task.cancel()
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await assert_one_was_cancelled(model)

    asyncio.run(main())


def test_a_task_cancelled_while_it_enters_leaves_nothing(endless: Callable[[], Any]) -> None:
    async def main() -> None:
        async with endless() as model:

            async def enter() -> None:
                async with model.stream("hi"):
                    raise AssertionError("entered")

            for turns in range(6):
                task = asyncio.create_task(enter())
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            statistics = await model.statistics()
            assert statistics.submitted == statistics.cancelled
            assert statistics.sequences_free == statistics.sequences

    asyncio.run(main())


def test_a_cancelled_read_of_one_delta_loses_none(scripted_model: Scripted, small: Options) -> None:
    script = b"every single byte of this arrives"

    async def main() -> None:
        async with paddock.aio.open_runtime() as runtime:
            model = await runtime.load_model(scripted_model(script), name="scripted", **small)
            text, reads, cancelled = "", 0, 0
            async with model.stream("hi", temperature=0) as request:
                while not text.endswith("arrives"):
                    reading = asyncio.create_task(request.receive_many())
                    reads += 1
                    for _ in range(reads % 8):
                        await asyncio.sleep(0)
                    if reads % 8:  # one of eight may wait
                        reading.cancel()
                    try:
                        text += "".join(delta.text for delta in await reading)
                    except asyncio.CancelledError:
                        cancelled += 1
            assert text == script.decode()
            assert cancelled > 0

    asyncio.run(main())


def test_a_cancelled_load_is_undone_whenever_it_is_cancelled(scripted_model: Scripted, small: Options) -> None:
    path = scripted_model(b"hello")

    async def main() -> None:
        async with paddock.aio.open_runtime() as runtime:

            async def load_and_wait() -> None:
                await runtime.load_model(path, name="scripted", **small)
                await asyncio.Event().wait()

            for delay in (0.0, 0.001, 0.01, 0.03):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(load_and_wait(), delay)
                if "scripted" in runtime.models:  # it was faster than the timeout
                    await runtime.unload_model("scripted")
                model = await runtime.load_model(path, name="scripted", **small)
                assert (await model.complete("hi", temperature=0)).text == "hello"
                await runtime.unload_model("scripted")

    asyncio.run(main())


def test_a_load_cancelled_at_the_moment_it_is_done_is_undone(scripted_model: Scripted, small: Options) -> None:
    async def main() -> None:
        async with paddock.aio.open_runtime() as runtime:
            task = asyncio.create_task(runtime.load_model(scripted_model(b"hello"), name="scripted", **small))
            await asyncio.sleep(0)
            while "scripted" not in runtime.models:
                pass
            assert not task.done()  # loaded on the trio thread, not known in this loop yet
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert runtime.models == {}

    asyncio.run(main())


def test_cancel_is_for_any_thread(endless: Callable[[], Any]) -> None:
    async def main() -> None:
        async with endless() as model, model.stream("hi") as request:
            await request.__anext__()
            canceller = threading.Thread(target=request.cancel)
            canceller.start()
            canceller.join()
            with pytest.raises(paddock.RequestCancelled):
                await request.result()

    asyncio.run(main())


def test_several_event_loops_share_a_runtime(tiny_model_path: Path, small: Options) -> None:
    small["n_seq_max"] = 4

    async def main() -> None:
        async with paddock.aio.open_runtime() as runtime:
            model = await runtime.load_model(tiny_model_path, name="tiny", **small)
            alone = [(await model.complete("a", seed=seed, max_tokens=6)).text for seed in range(4)]

            def other_loop(seed: int) -> str:
                async def stream() -> str:
                    async with model.stream("a", seed=seed, max_tokens=6) as request:
                        return "".join([delta.text async for delta in request])

                return asyncio.run(stream())

            with ThreadPoolExecutor(4) as threads:
                loop = asyncio.get_running_loop()
                texts = await asyncio.gather(*(loop.run_in_executor(threads, other_loop, seed) for seed in range(4)))
            assert list(texts) == alone

    asyncio.run(main())


def test_several_runtimes_live_side_by_side(scripted_model: Scripted, small: Options) -> None:
    async def main() -> None:
        async with paddock.aio.open_runtime() as one, paddock.aio.open_runtime() as two:
            first = await one.load_model(scripted_model(b"first"), name="same", **small)
            second = await two.load_model(scripted_model(b"second"), name="same", **small)
            texts = await asyncio.gather(first.complete("hi", temperature=0), second.complete("hi", temperature=0))
            assert [completion.text for completion in texts] == ["first", "second"]
            await one.unload_model("same")
            assert (await second.complete("hi", temperature=0)).text == "second"

    asyncio.run(main())


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts its turns."""

    turns = 0

    def _run_once(self) -> None:
        self.turns += 1
        super()._run_once()  # type: ignore[misc]


def run_counted(main: Callable[[CountingLoop], Coroutine[Any, Any, None]]) -> None:
    loop = CountingLoop()
    try:
        loop.run_until_complete(main(loop))
    finally:
        loop.close()


def test_a_scope_of_anyio_cancels_without_spinning_the_loop(endless: Callable[[], Any]) -> None:
    async def main(loop: CountingLoop) -> None:
        async with endless() as model:

            async def stream() -> None:
                async with model.stream("hi") as request:
                    while True:
                        await request.__anext__()

            with anyio.move_on_after(0.1) as scope:
                await stream()
            assert scope.cancelled_caught
            before = loop.turns
            with anyio.CancelScope() as scope:
                async with model.stream("hi"):
                    scope.cancel()
            assert scope.cancel_called
            assert loop.turns - before < 30
            statistics = await model.statistics()
            assert statistics.cancelled == 2
            assert statistics.sequences_free == statistics.sequences

    run_counted(main)


def test_waiting_for_a_delta_leaves_the_event_loop_idle(scripted_model: Scripted, small: Options) -> None:
    """No polling: while a request waits, the loop is not woken once."""

    async def main(loop: CountingLoop) -> None:
        small["n_seq_max"] = 1
        async with paddock.aio.open_runtime() as runtime:
            model = await runtime.load_model(scripted_model(b"on ", then="repeat"), name="endless", **small)
            async with model.stream("hi") as running, asyncio.TaskGroup() as tasks:
                await running.__anext__()
                queued = model.stream("hi")
                waiting = tasks.create_task(queued.__aenter__())
                await waiting
                first = tasks.create_task(queued.__anext__())
                await asyncio.sleep(0.02)
                before = loop.turns
                await asyncio.sleep(0.2)
                assert loop.turns - before <= 2  # the timer's own
                running.cancel()
                assert (await first).text == "o"
                await queued.__aexit__(None, None, None)

    run_counted(main)


def test_progress_is_told_in_the_calling_loop(scripted_model: Scripted, small: Options) -> None:
    async def main() -> None:
        here, threads = threading.get_ident(), set()
        async with paddock.aio.open_runtime() as runtime:
            await runtime.load_model(
                scripted_model(b"hello"),
                name="scripted",
                on_progress=lambda _: threads.add(threading.get_ident()),
                **small,
            )
            await asyncio.sleep(0)
        assert threads <= {here}

    asyncio.run(main())


def test_closing_a_runtime_ends_what_other_tasks_wait_for(scripted_model: Scripted, small: Options) -> None:
    async def main() -> None:
        async with paddock.aio.open_runtime() as runtime:
            model = await runtime.load_model(
                scripted_model(b"on ", then="repeat"), name="endless", **{**small, "n_ctx": 4096}
            )
            waiting = asyncio.create_task(model.complete("hi"))
            while (await model.statistics()).running == 0:
                pass
        with pytest.raises((paddock.RequestCancelled, paddock.RuntimeClosed)) as caught:
            await waiting
        if isinstance(caught.value, paddock.RequestCancelled):
            assert caught.value.origin == "shutdown"

    asyncio.run(main())


def test_a_runtime_that_is_cancelled_while_it_opens_leaves_nothing(scripted_model: Scripted, small: Options) -> None:
    config = paddock.RuntimeConfig(
        models=(paddock.ModelConfig(source=scripted_model(b"hello"), name="scripted", **small),)
    )

    async def main() -> None:
        before = threading.active_count()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.002), paddock.aio.open_runtime(config):
                await asyncio.Event().wait()
        assert threading.active_count() <= before + 4  # trio keeps the idle threads in which it reads files

    asyncio.run(main())


def test_the_block_of_a_cancelled_task_closes_the_runtime(scripted_model: Scripted, small: Options) -> None:
    async def main() -> None:
        opened: asyncio.Future[paddock.aio.Runtime] = asyncio.get_running_loop().create_future()

        async def service() -> None:
            async with paddock.aio.open_runtime() as runtime:
                await runtime.load_model(scripted_model(b"hello"), name="scripted", **small)
                opened.set_result(runtime)
                await asyncio.Event().wait()

        task = asyncio.create_task(service())
        runtime = await opened
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(paddock.RuntimeClosed):
            await runtime.tree()

    asyncio.run(main())


def test_asyncio_objects_outside_a_loop_say_so() -> None:
    async def main() -> None:
        async with paddock.aio.open_runtime() as runtime:
            coroutine = runtime.tree()
            with pytest.raises(RuntimeError, match="no running event loop"), ThreadPoolExecutor(1) as thread:
                thread.submit(coroutine.send, None).result()

    asyncio.run(main())
