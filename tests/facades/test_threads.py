"""What is particular to plain threads: interrupts, generators, garbage, many threads."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import paddock.blocking

Options = dict[str, Any]
Scripted = Callable[..., Path]


@pytest.fixture
def model(scripted_model: Scripted, small: Options) -> Iterator[paddock.blocking.Model]:
    """A model that never stops by itself."""
    with paddock.blocking.open_runtime() as runtime:
        path = scripted_model(b"for ever ", then="repeat")
        yield runtime.load_model(path, name="endless", **{**small, "n_ctx": 4096})


def interrupt_when(condition: Callable[[], bool]) -> threading.Thread:
    """Ctrl-C in the main thread as soon as the condition holds, from another thread."""

    def watch() -> None:
        while not condition():
            pass
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_ctrl_c_cancels_a_completion_and_the_model_serves_on(model: paddock.blocking.Model) -> None:
    interrupter = interrupt_when(lambda: model.statistics().running == 1)
    with pytest.raises(KeyboardInterrupt):
        model.complete("hi")
    interrupter.join()
    statistics = model.statistics()
    assert (statistics.cancelled, statistics.running) == (1, 0)
    assert statistics.sequences_free == statistics.sequences
    assert model.complete("hi", max_tokens=3, temperature=0).text == "for"


def test_ctrl_c_in_a_stream_cancels_it(model: paddock.blocking.Model) -> None:
    request = model.stream("hi")
    interrupter = interrupt_when(lambda: request.progress.generated > 3)

    def read() -> None:
        with request:
            for _ in request:
                pass

    with pytest.raises(KeyboardInterrupt):
        read()
    interrupter.join()
    assert request.finished
    assert model.statistics().sequences_free == model.statistics().sequences


def test_ctrl_c_undoes_a_load(scripted_model: Scripted, small: Options) -> None:
    reports = 0

    def interrupt(_: float) -> None:
        nonlocal reports
        reports += 1
        if reports == 1:  # the main thread is waiting for the load
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with paddock.blocking.open_runtime() as runtime:
        with pytest.raises(KeyboardInterrupt):
            runtime.load_model(scripted_model(b"hello"), name="scripted", on_progress=interrupt, **small)
        assert runtime.models == {}
        assert runtime.load_model(scripted_model(b"hello"), name="scripted", **small).name == "scripted"


def texts(model: paddock.blocking.Model) -> Iterator[str]:
    with model.stream("hi") as request:
        for delta in request:
            yield delta.text


def test_a_generator_that_is_closed_cancels_its_request(model: paddock.blocking.Model) -> None:
    generator = texts(model)
    assert next(generator)
    generator.close()  # type: ignore[attr-defined]
    assert model.statistics().cancelled == 1


def test_a_generator_that_is_dropped_cancels_its_request(model: paddock.blocking.Model) -> None:
    assert next(texts(model))
    gc.collect()
    assert model.statistics().cancelled == 1


def test_a_generator_collected_on_the_background_thread_does_not_hang_it(model: paddock.blocking.Model) -> None:
    generators = [texts(model)]
    assert next(generators[0])

    def drop(_: float) -> None:
        generators.clear()

    model._thread.notify(drop, 0.0)
    while model.statistics().cancelled == 0:
        pass
    assert generators == []


def test_a_request_entered_and_forgotten_is_cancelled(model: paddock.blocking.Model) -> None:
    request = model.stream("hi")
    assert next(request.__enter__())
    del request
    gc.collect()
    while model.statistics().running:
        pass
    assert model.statistics().cancelled == 1


def test_cancel_ends_a_read_in_another_thread(model: paddock.blocking.Model) -> None:
    with model.stream("hi") as request, ThreadPoolExecutor(1) as thread:
        reading = thread.submit(request.result)
        request.cancel()
        with pytest.raises(paddock.RequestCancelled):
            reading.result()


def test_any_number_of_threads(tiny_model_path: Path, small: Options) -> None:
    small |= {"n_seq_max": 4}
    with paddock.blocking.open_runtime() as runtime:
        model = runtime.load_model(tiny_model_path, name="tiny", **small)

        def complete(seed: int) -> str:
            return model.complete("a", seed=seed % 5, max_tokens=4).text

        alone = [complete(seed) for seed in range(5)]
        with ThreadPoolExecutor(20) as threads:
            together = list(threads.map(complete, range(40)))
        assert together == alone * 8
        assert model.statistics().sequences_free == 4


def test_two_threads_read_one_request_and_each_delta_arrives_once(scripted_model: Scripted, small: Options) -> None:
    script = bytes(range(ord("A"), ord("z"))) * 4
    with paddock.blocking.open_runtime() as runtime:
        model = runtime.load_model(scripted_model(script), name="scripted", **small)
        with model.stream("hi", temperature=0) as request, ThreadPoolExecutor(2) as threads:
            halves = [threads.submit(lambda: [delta.text for delta in request]) for _ in range(2)]
            pieces = [piece for half in halves for piece in half.result()]
        assert sorted("".join(pieces)) == sorted(script.decode())


def test_a_runtime_that_nobody_closed_closes_itself(scripted_model: Scripted, small: Options) -> None:
    before = set(threading.enumerate())
    runtime = paddock.blocking.open_runtime().__enter__()
    runtime._itself = runtime  # type: ignore[attr-defined]  # left to the garbage collector
    runtime.load_model(scripted_model(b"hello"), name="scripted", **small)
    (thread,) = [thread for thread in set(threading.enumerate()) - before if thread.name == "paddock"]
    closed = runtime._thread._state.closed
    del runtime
    with pytest.warns(ResourceWarning, match="not closed"):
        gc.collect()
    closed.result()
    thread.join()


def test_a_runtime_entered_without_with_lives_as_long_as_it_is_used(scripted_model: Scripted, small: Options) -> None:
    opening = paddock.blocking.open_runtime()
    model = opening.__enter__().load_model(scripted_model(b"hello"), name="scripted", **small)
    gc.collect()
    assert model.complete("hi", temperature=0).text == "hello"
    opening.__exit__(None, None, None)
    opening.__exit__(None, None, None)
    with pytest.raises(RuntimeError, match="entered already"):
        opening.__enter__()
