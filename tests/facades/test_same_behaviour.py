"""The three interfaces do the same: one scenario, run on each."""

from __future__ import annotations

import inspect
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from flavours import FLAVOURS, Flavour

import paddock

HELLO = b"Hello from the other side of the paddock."
Options = dict[str, Any]
Scripted = Callable[..., Path]


async def settled(model: Any) -> paddock.ModelStatistics:
    """The statistics once nothing runs any more: a sequence is freed within a step of its request's end."""
    while True:
        statistics: paddock.ModelStatistics = await model.statistics()
        if statistics.queued == statistics.running == 0:
            return statistics


async def drained(request: Any) -> None:
    while await request.receive_many():
        pass


def adds_up(statistics: paddock.ModelStatistics) -> bool:
    outcomes = statistics.completed + statistics.failed + statistics.cancelled
    waiting = statistics.queued + statistics.running
    return statistics.submitted == outcomes + waiting


def test_a_completion_is_the_script_and_streams_in_the_same_words(
    flavour: Flavour, scripted_model: Scripted, small: Options
) -> None:
    async def scenario() -> None:
        async with flavour.open_runtime() as runtime:
            model = await runtime.load_model(scripted_model(HELLO), name="scripted", **small)
            completion = await model.complete("hi", temperature=0)
            assert completion.text == HELLO.decode()
            assert completion.finish_reason == "stop"
            assert completion.usage.completion_tokens == len(HELLO) + 1
            async with model.stream("hi", temperature=0) as request:
                deltas = [delta async for delta in request]
                assert request.finished
                assert await request.result() == attrs.evolve(completion, seed=request.seed)
            assert "".join(delta.text for delta in deltas) == completion.text
            assert tuple(token for delta in deltas for token in delta.token_ids) == completion.token_ids

    flavour.run(scenario)


def test_the_same_seed_gives_the_same_reply_on_all_three(tiny_model_path: Path, small: Options) -> None:
    async def scenario(flavour: Flavour) -> paddock.Completion:
        async with flavour.open_runtime() as runtime:
            model = await runtime.load_model(tiny_model_path, name="tiny", **small)
            completion: paddock.Completion = await model.complete(
                "Once upon a time", max_tokens=12, seed=7, temperature=0.8, logprobs=2
            )
            return completion

    first, *others = [flavour.run(scenario, flavour) for flavour in FLAVOURS]
    assert others == [first, first]
    assert first.seed == 7


def test_deltas_that_wait_come_in_one_batch(flavour: Flavour, scripted_model: Scripted, small: Options) -> None:
    async def scenario() -> None:
        async with flavour.open_runtime() as runtime:
            model = await runtime.load_model(scripted_model(HELLO), name="scripted", **small)
            async with model.stream("hi", temperature=0) as request:
                statistics = await settled(model)
                assert statistics.completed == 1
                deltas = await request.receive_many()
                assert "".join(delta.text for delta in deltas) == HELLO.decode()
                assert await request.receive_many() == []
                assert await request.receive_many() == []
                with pytest.raises((StopAsyncIteration, StopIteration)):
                    await request.__anext__()

    flavour.run(scenario)


def test_a_slow_consumer_gets_everything_through_a_small_buffer(
    flavour: Flavour, scripted_model: Scripted, small: Options
) -> None:
    async def scenario() -> None:
        async with flavour.open_runtime() as runtime:
            model = await runtime.load_model(scripted_model(HELLO), name="scripted", delta_buffer=2, **small)
            async with model.stream("hi", temperature=0) as request:
                batches = []
                while batch := await request.receive_many():
                    batches.append("".join(delta.text for delta in batch))
                assert "".join(batches) == HELLO.decode()

    flavour.run(scenario)


def test_a_cancel_by_the_handle_ends_the_stream_and_frees_the_sequence(
    flavour: Flavour, scripted_model: Scripted, small: Options
) -> None:
    async def scenario() -> None:
        async with flavour.open_runtime() as runtime:
            model = await runtime.load_model(scripted_model(b"for ever ", then="repeat"), name="endless", **small)
            async with model.stream("hi", temperature=0) as request:
                assert (await request.__anext__()).text == "f"
                request.cancel()
                request.cancel()
                with pytest.raises(paddock.RequestCancelled) as caught:
                    await drained(request)
                assert caught.value.origin == "handle"
            statistics = await settled(model)
            assert (statistics.submitted, statistics.cancelled) == (1, 1)
            assert statistics.sequences_free == statistics.sequences
            assert (await model.complete("hi", max_tokens=3, temperature=0)).text == "for"

    flavour.run(scenario)


def test_a_request_cancelled_before_it_is_entered_never_starts(
    flavour: Flavour, scripted_model: Scripted, small: Options
) -> None:
    async def scenario() -> None:
        async with flavour.open_runtime() as runtime:
            model = await runtime.load_model(scripted_model(HELLO), name="scripted", **small)
            request = model.stream("hi")
            request.cancel()
            with pytest.raises(paddock.RequestCancelled):
                async with request:
                    raise AssertionError("entered")
            assert (await model.statistics()).submitted == 0

    flavour.run(scenario)


def test_leaving_the_block_cancels_and_the_sequence_is_free_at_once(
    flavour: Flavour, scripted_model: Scripted, small: Options
) -> None:
    async def scenario() -> None:
        async with flavour.open_runtime() as runtime:
            model = await runtime.load_model(scripted_model(b"for ever ", then="repeat"), name="endless", **small)
            request = model.stream("hi")

            async def fail() -> None:
                async with request:
                    await request.__anext__()
                    raise LookupError("mine")

            with pytest.raises(LookupError, match="mine"):
                await fail()
            statistics = await model.statistics()
            assert statistics.cancelled == 1
            assert statistics.sequences_free == statistics.sequences
            assert adds_up(statistics)
            with pytest.raises(RuntimeError, match="once"):
                await request.__aenter__()

    flavour.run(scenario)


def test_a_request_that_is_not_entered_says_so(flavour: Flavour, scripted_model: Scripted, small: Options) -> None:
    async def scenario() -> None:
        async with flavour.open_runtime() as runtime:
            model = await runtime.load_model(scripted_model(HELLO), name="scripted", **small)
            request = model.stream("hi")
            for method in (request.__anext__, request.receive_many, request.result):
                with pytest.raises(RuntimeError, match="enter the request first"):
                    await method()

    flavour.run(scenario)


def test_many_streams_at_once_share_the_steps(flavour: Flavour, tiny_model_path: Path, small: Options) -> None:
    small["n_seq_max"] = 8

    async def scenario() -> None:
        async with flavour.open_runtime() as runtime:
            model = await runtime.load_model(tiny_model_path, name="tiny", **small)

            def streaming(seed: int) -> Callable[[], Any]:
                async def stream() -> str:
                    async with model.stream("Once", seed=seed, max_tokens=10, ignore_eos=True) as request:
                        return "".join([delta.text async for delta in request])

                return stream

            alone = [await streaming(seed)() for seed in range(8)]
            before = (await settled(model)).decode_steps
            together = await flavour.at_once(*(streaming(seed) for seed in range(8)))
            statistics = await settled(model)
            assert together == alone
            assert statistics.decode_steps - before < 8 * 10 / 2
            assert statistics.completed == 16
            assert adds_up(statistics)

    flavour.run(scenario)


def test_typed_errors_arrive_as_they_are_and_the_model_serves_on(
    flavour: Flavour, scripted_model: Scripted, small: Options, tmp_path: Path
) -> None:
    text_file = tmp_path / "poem.gguf"
    text_file.write_text("Roses are red")

    async def scenario() -> None:
        async with flavour.open_runtime() as runtime:
            model = await runtime.load_model(scripted_model(HELLO), name="scripted", **small)
            for arguments, parameter in (
                ({"temperature": float("nan")}, "temperature"),
                ({"top_p": 2}, "top_p"),
                ({"max_tokens": 0}, "max_tokens"),
                ({"temprature": 1}, "temprature"),
                ({"undo": 1}, "undo"),
                ({"function": 1}, "function"),
                ({"priority": 1.5}, "priority"),
                ({"deadline": -1}, "deadline"),
            ):
                with pytest.raises(paddock.InvalidParameter) as invalid:
                    await model.complete("hi", **arguments)
                assert invalid.value.parameter == parameter
            with pytest.raises(paddock.InvalidParameter):
                model.stream("")
            with pytest.raises(paddock.ContextOverflow) as overflow:
                await model.complete("hi", max_tokens=100_000)
            assert (overflow.value.max_tokens, overflow.value.n_ctx) == (100_000, 512)
            with pytest.raises(paddock.ContextOverflow):
                async with model.stream("hi" * 1000):
                    raise AssertionError("entered")
            with pytest.raises(paddock.ModelAlreadyLoaded):
                await runtime.load_model(scripted_model(HELLO), name="scripted")
            with pytest.raises(paddock.ModelNotFound):
                await runtime.load_model("no-such-model")
            with pytest.raises(paddock.InvalidModelFile) as refused:
                await runtime.load_model(text_file)
            assert refused.value.path == str(text_file)
            with pytest.raises(paddock.InvalidConfiguration):
                await runtime.load_model(scripted_model(HELLO), name="other", n_ctx=1)
            with pytest.raises(paddock.ModelNotLoaded):
                runtime.model("other")
            assert (await model.complete("hi", temperature=0)).text == HELLO.decode()
            assert adds_up(await settled(model))

    flavour.run(scenario)


def test_a_deadline_ends_a_request(flavour: Flavour, scripted_model: Scripted, small: Options) -> None:
    async def scenario() -> None:
        async with flavour.open_runtime() as runtime:
            model = await runtime.load_model(scripted_model(b"on and on ", then="repeat"), name="endless", **small)
            async with model.stream("hi", deadline=0.2) as request:
                # Unread, it is paused long before it is complete, and the deadline finds it there.
                assert (await settled(model)).failed == 1
                with pytest.raises(paddock.DeadlineExceeded) as caught:
                    await drained(request)
                assert caught.value.phase == "decode"

    flavour.run(scenario)


def test_a_full_queue_refuses_and_says_so(flavour: Flavour, scripted_model: Scripted, small: Options) -> None:
    small |= {"n_seq_max": 1, "queue_limit": 0}

    async def scenario() -> None:
        async with flavour.open_runtime() as runtime:
            model = await runtime.load_model(scripted_model(b"busy ", then="repeat"), name="busy", **small)
            async with model.stream("hi") as request:
                await request.__anext__()
                with pytest.raises(paddock.QueueFull) as full:
                    await model.complete("me too")
                assert full.value.limit == 0
            assert (await settled(model)).refused == 1

    flavour.run(scenario)


def test_chat_renders_and_answers(flavour: Flavour, scripted_model: Scripted, small: Options) -> None:
    messages = [{"role": "user", "content": "Who is there?"}]

    async def scenario() -> None:
        async with flavour.open_runtime() as runtime:
            model = await runtime.load_model(scripted_model(HELLO), name="scripted", **small)
            rendered = await model.render_chat(messages)
            assert rendered == "<|im_start|>user\nWho is there?<|im_end|>\n<|im_start|>assistant\n"
            assert (await model.chat(messages, temperature=0)).text == HELLO.decode()
            async with await model.stream_chat(messages, temperature=0) as request:
                assert "".join([delta.text async for delta in request]) == HELLO.decode()
            with pytest.raises(paddock.InvalidParameter):
                await model.chat([{"role": "user"}])
            bare = await runtime.load_model(scripted_model(HELLO, chat_template=None), name="bare", **small)
            with pytest.raises(paddock.ChatTemplateMissing):
                await bare.chat(messages)

    flavour.run(scenario)


def test_tokenize_and_detokenize_return_the_text(flavour: Flavour, tiny_model_path: Path, small: Options) -> None:
    async def scenario() -> None:
        async with flavour.open_runtime() as runtime:
            model = await runtime.load_model(tiny_model_path, name="tiny", **small)
            tokens = await model.tokenize("the late llama 🦙", add_special=False)
            assert model.detokenize(tokens) == "the late llama 🦙"
            assert len(await model.tokenize("the late llama 🦙")) == len(tokens) + 1

    flavour.run(scenario)


def test_a_model_is_loaded_unloaded_and_loaded_again_under_its_name(
    flavour: Flavour, scripted_model: Scripted, small: Options
) -> None:
    async def scenario() -> None:
        progress: list[float] = []
        async with flavour.open_runtime() as runtime:
            for _ in range(2):
                model = await runtime.load_model(
                    scripted_model(HELLO), name="scripted", on_progress=progress.append, **small
                )
                assert runtime.model("scripted") == model
                assert runtime.models == {"scripted": model}
                assert (model.name, model.n_ctx, model.exactness) == ("scripted", 512, "canonical")
                assert model.config.n_seq_max == 2
                assert model.facts.architecture == "llama"
                await model.wait_serving()
                assert [child.id for child in (await runtime.tree()).children] == ["cache", "models"]
                await runtime.unload_model("scripted")
                assert runtime.models == {}
                with pytest.raises(paddock.ModelNotLoaded):
                    await model.complete("hi")
                with pytest.raises(paddock.ModelNotLoaded):
                    await model.statistics()
                with pytest.raises(paddock.ModelNotLoaded):
                    await runtime.unload_model("scripted")
            assert all(0 <= fraction <= 1 for fraction in progress)

    flavour.run(scenario)


def test_an_unload_waits_for_requests_or_cancels_them(
    flavour: Flavour, scripted_model: Scripted, small: Options
) -> None:
    async def scenario() -> None:
        async with flavour.open_runtime() as runtime:
            model = await runtime.load_model(scripted_model(b"on and on ", then="repeat"), name="endless", **small)
            async with model.stream("hi") as request:
                await request.__anext__()
                await runtime.unload_model("endless", cancel=True)
                with pytest.raises(paddock.RequestCancelled) as caught:
                    await request.result()
                assert caught.value.origin == "unload"
            model = await runtime.load_model(scripted_model(HELLO), name="scripted", **small)
            async with model.stream("hi", temperature=0) as request:

                async def read() -> str:
                    return "".join([delta.text async for delta in request])

                async def unload() -> None:
                    await runtime.unload_model("scripted")

                text, _ = await flavour.at_once(read, unload)
                assert text == HELLO.decode()

    flavour.run(scenario)


def test_a_stream_goes_on_when_its_worker_is_killed(flavour: Flavour, scripted_model: Scripted, small: Options) -> None:
    small["isolation"] = "process"

    async def scenario() -> None:
        async with flavour.open_runtime() as runtime:
            model = await runtime.load_model(scripted_model(b"on and on ", then="repeat"), name="endless", **small)
            async with model.stream("hi", temperature=0) as request:
                await request.__anext__()
                pid = (await model.statistics()).worker_pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
                await drained(request)
                completion = await request.result()
                assert completion.text.startswith("on and on on and on ")
                assert (completion.finish_reason, completion.recoveries) == ("length", 1)
            assert (await model.complete("hi", max_tokens=6, temperature=0)).text == "on and"
            await model.wait_serving()
            statistics = await settled(model)
            assert (statistics.failed, statistics.worker_deaths, statistics.worker_starts) == (0, 1, 2)
            assert statistics.recovered_requests == 1
            assert statistics.sequences_free == statistics.sequences
            assert adds_up(statistics)

    flavour.run(scenario)


def test_models_of_the_configuration_are_loaded_when_it_opens(
    flavour: Flavour, scripted_model: Scripted, small: Options, tmp_path: Path
) -> None:
    config = tmp_path / "paddock.toml"
    lines = [
        f'source = "{scripted_model(HELLO)}"',
        'name = "one"',
        'isolation = "thread"',
        "n_ctx = 128",
        "n_threads = 1",
    ]
    config.write_text("\n".join(["[[models]]", *lines]))

    async def scenario() -> None:
        async with flavour.open_runtime(config) as runtime:
            assert list(runtime.models) == ["one"]
            assert runtime.config.models[0].n_ctx == 128
            assert (await runtime.model("one").complete("hi", temperature=0)).text == HELLO.decode()
        with pytest.raises(paddock.ModelNotFound):
            async with flavour.open_runtime(paddock.RuntimeConfig(models=(paddock.ModelConfig(source="nowhere"),))):
                raise AssertionError("opened")
        with pytest.raises(paddock.InvalidConfiguration):
            async with flavour.open_runtime(tmp_path / "missing.toml"):
                raise AssertionError("opened")

    flavour.run(scenario)


def test_a_closed_runtime_says_so(flavour: Flavour, scripted_model: Scripted, small: Options) -> None:
    async def scenario() -> None:
        async with flavour.open_runtime() as runtime:
            model = await runtime.load_model(scripted_model(HELLO), name="scripted", **small)
        assert "closed" in repr(runtime)
        with pytest.raises(paddock.RuntimeClosed):
            await runtime.load_model(scripted_model(HELLO))
        with pytest.raises(paddock.RuntimeClosed):
            await runtime.tree()
        with pytest.raises(paddock.RuntimeClosed):
            runtime.model("scripted")
        with pytest.raises((paddock.RuntimeClosed, paddock.ModelNotLoaded)):
            await model.complete("hi")

    flavour.run(scenario)


def test_an_error_in_the_block_leaves_it_as_it_is(flavour: Flavour) -> None:
    async def scenario() -> None:
        async with flavour.open_runtime():
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        flavour.run(scenario)


def test_an_object_shows_what_it_is(flavour: Flavour, scripted_model: Scripted, small: Options) -> None:
    async def scenario() -> None:
        async with flavour.open_runtime() as runtime:
            model = await runtime.load_model(scripted_model(HELLO), name="scripted", **small)
            module = flavour.module.__name__
            assert repr(runtime) == f"<{module}.Runtime models: scripted>"
            assert repr(model) == f"<{module}.Model 'scripted' n_ctx=512 exactness='canonical'>"
            request = model.stream("hi", seed=5)
            assert repr(request) == f"<{module}.Request {request.id} queued>"
            assert (request.model, request.seed, request.finished) == ("scripted", 5, False)
            assert request.progress.generated == 0
            assert not inspect.iscoroutine(request.cancel())

    flavour.run(scenario)
