"""One context on real llama.cpp: sequences, decoding, sampling, aborting."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from decoding import PROMPT, as_row, decode, logits, logits_chunk, run, step
from structlog.testing import capture_logs

from gguf_builders import EOS, script_bytes
from paddock.errors import (
    DecodeAborted,
    InvalidBatch,
    InvalidConfiguration,
    InvalidParameter,
    ModelLoadFailed,
)
from paddock.native.batch import Chunk, Sampled, SampleMode
from paddock.native.context import Context, ContextParameters
from paddock.native.model import NativeModel
from paddock.sampling import SamplingParameters

GREEDY = SamplingParameters(temperature=0, seed=0)


def tokens_of(sampled: list[Sampled]) -> list[int]:
    return [one.token for one in sampled]


def test_a_scripted_model_says_its_script_and_stops(
    scripted_model: Callable[..., Path], make_context: Callable[..., Context]
) -> None:
    script = 'A llama 🦙 said: {"name": "héllo"}\n'.encode()
    model = NativeModel.load(scripted_model(script))
    context = make_context(model)
    prompt = model.tokenize(b"say it", True, False)
    for sampling in (GREEDY, SamplingParameters(seed=3), SamplingParameters(seed=4, temperature=1.5)):
        tokens = tokens_of(run(context, sampling, len(script) + 1, prompt=prompt))
        assert script_bytes(tokens, script) == script
        assert tokens[-1] == EOS
    context.free()
    model.free()


def test_sizes_are_those_of_the_context(context: Context) -> None:
    sizes = context.sizes()
    assert (sizes.n_ctx_seq, sizes.n_seq_max, sizes.n_batch, sizes.n_ubatch) == (512, 8, 512, 512)
    assert sizes.kv_bytes == 4 * 2 * (2 * 64) * 2 * 512 * 8  # layers, K and V, width, two bytes, cells
    assert sizes.state_bytes > 0


def test_cells_per_sequence_are_rounded_up_to_256(make_context: Callable[..., Context]) -> None:
    assert make_context(n_ctx=257, n_seq_max=3).sizes().n_ctx_seq == 512
    assert make_context(n_ctx=1, n_seq_max=1).sizes().n_ctx_seq == 256


@pytest.mark.parametrize(
    ("n_seq_max", "n_batch", "n_ubatch"), [(8, 1, 1), (8, 3, 512), (1, 2048, 16), (256, 512, 512), (8, 512, 3)]
)
def test_contexts_of_odd_shapes_decode(
    make_context: Callable[..., Context], n_seq_max: int, n_batch: int, n_ubatch: int
) -> None:
    context = make_context(n_ctx=256, n_seq_max=n_seq_max, n_batch=n_batch, n_ubatch=n_ubatch)
    for name in range(min(n_seq_max, n_batch, 4)):
        context.open_sequence(name, 1, GREEDY)
    chunks = [Chunk(name, 1, 0, [5], SampleMode.TOKEN) for name in range(min(n_seq_max, n_batch, 4))]
    assert len(set(tokens_of(context.decode_and_sample_batch(chunks)))) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_ctx", 0), ("n_ctx", 2**31), ("n_ctx", True), ("n_ctx", 1.5), ("n_seq_max", 0), ("n_seq_max", 257),
        ("n_batch", 0), ("n_ubatch", 0), ("n_ubatch", 2**21), ("n_threads", 0), ("n_threads_batch", 513),
        ("type_k", "q9"), ("type_v", 1), ("type_v", "q8_0"), ("flash_attention", 1), ("kv_unified", None),
        ("fill_gaps", 1),
    ],
)  # fmt: skip
def test_a_context_parameter_outside_its_range_is_refused(name: str, value: object) -> None:
    with pytest.raises(InvalidConfiguration, match=name):
        ContextParameters(**{name: value})  # type: ignore[arg-type]


def test_a_context_larger_than_the_machine_is_refused(model: NativeModel) -> None:
    with pytest.raises(ModelLoadFailed, match="GiB"):
        Context.create(model, ContextParameters(n_ctx=2**23 - 256, n_seq_max=255))
    with pytest.raises(ModelLoadFailed, match="cells"):
        Context.create(model, ContextParameters(n_ctx=2**30, n_seq_max=256))


def test_a_context_without_weights_is_refused(tiny_model_path: Path) -> None:
    model = NativeModel.load(tiny_model_path, {"vocab_only": True})
    with pytest.raises(ModelLoadFailed):
        Context.create(model, {"n_ctx": 256})
    model.free()


@pytest.mark.parametrize("options", [
    {"flash_attention": True}, {"flash_attention": True, "type_k": "q8_0", "type_v": "q8_0"},
    {"type_k": "bf16", "type_v": "f32"}, {"kv_unified": True}, {"type_k": "q4_0"},
])  # fmt: skip
def test_other_caches_decode(make_context: Callable[..., Context], options: dict[str, Any]) -> None:
    context = make_context(**options)
    sampled = run(context, GREEDY, 5)
    assert len(tokens_of(sampled)) == 5


def test_opening_clears_what_the_sequence_held(context: Context) -> None:
    fresh = tokens_of(run(context, GREEDY, 8))
    context.open_sequence(0, 1, GREEDY)
    decode(context, 0, 1, [700, 701, 702])
    assert context.position(0) == 3
    assert tokens_of(run(context, GREEDY, 8)) == fresh


def test_a_stale_release_does_nothing(context: Context) -> None:
    context.open_sequence(0, 5, GREEDY)
    decode(context, 0, 5, [1, 2])
    context.release_sequence(0, 4)
    assert context.position(0) == 2
    context.release_sequence(0, 5)
    assert context.position(0) == 0
    context.release_sequence(0, 5)


def test_a_row_of_a_released_sequence_is_never_applied(context: Context) -> None:
    context.open_sequence(0, 5, GREEDY)
    context.release_sequence(0, 5)
    with pytest.raises(InvalidBatch, match="not open"):
        context.decode_and_sample_batch([Chunk(0, 5, 0, [1], SampleMode.TOKEN)])
    context.open_sequence(0, 6, GREEDY)
    with pytest.raises(InvalidBatch, match="stale"):
        context.decode_and_sample_batch([Chunk(0, 5, 0, [1], SampleMode.TOKEN)])
    with pytest.raises(InvalidBatch):
        context.sample_logits(0, 5, bytes(4 * 2048))


def test_a_refused_batch_leaves_everything_as_it_was(context: Context) -> None:
    undisturbed = tokens_of(run(context, GREEDY, 12))
    context.open_sequence(0, 1, GREEDY, history=PROMPT)
    tokens = [step(context, 0, 1, PROMPT).token]
    wrong: list[list[Chunk]] = [
        [Chunk(0, 1, 99, [1], 1)],
        [Chunk(0, 1, context.position(0), [1], 1), Chunk(9, 1, 0, [1], 1)],
        [Chunk(0, 1, context.position(0), [2048], 1)],
        [Chunk(0, 1, context.position(0), [1] * 513, 1)],
        [],
    ]
    while len(tokens) < 12:
        for batch in wrong:
            with pytest.raises(InvalidBatch):
                context.decode_and_sample_batch(batch)
        tokens.append(step(context, 0, 1, tokens[-1:]).token)
    assert tokens == undisturbed


def test_wrong_sequence_ids_and_histories_are_refused(context: Context) -> None:
    for name in (-1, 8, "0", None, 2**40):
        with pytest.raises(InvalidBatch):
            context.open_sequence(name, 1, GREEDY)  # type: ignore[arg-type]
        with pytest.raises(InvalidBatch):
            context.release_sequence(name, 1)  # type: ignore[arg-type]
        with pytest.raises(InvalidBatch):
            context.position(name)  # type: ignore[arg-type]
    for history in ([2048], [-1], [1.5], ["a"], [[1]], [1, [2]]):
        with pytest.raises(InvalidParameter, match="history"):
            context.open_sequence(0, 1, GREEDY, history=history)  # type: ignore[arg-type]
    with pytest.raises(InvalidParameter, match="generated"):
        context.open_sequence(0, 1, GREEDY, generated=-1)
    with pytest.raises(InvalidBatch, match="generation"):
        context.open_sequence(0, None, GREEDY)  # type: ignore[arg-type]
    with pytest.raises(InvalidParameter, match="seed"):
        context.open_sequence(0, 1, SamplingParameters())
    with pytest.raises(InvalidParameter, match="stop_token_ids"):
        context.open_sequence(0, 1, SamplingParameters(seed=1, stop_token_ids=(2048,)))
    with pytest.raises(InvalidParameter, match="sampler_state"):
        context.open_sequence(0, 1, GREEDY, sampler_state=b"1234")
    with pytest.raises(InvalidParameter, match="sampler_state"):
        context.open_sequence(0, 1, SamplingParameters(seed=1, mirostat=2), generated=3)
    with pytest.raises(InvalidParameter, match="sampler_state"):
        context.open_sequence(0, 1, SamplingParameters(seed=1, mirostat=2), generated=3, sampler_state=b"\0\0\xc0\x7f")


def test_a_full_sequence_is_refused_and_its_neighbours_go_on(make_context: Callable[..., Context]) -> None:
    context = make_context(n_ctx=256, n_seq_max=2)
    context.open_sequence(0, 1, GREEDY)
    context.open_sequence(1, 1, GREEDY)
    decode(context, 0, 1, [5] * 255)
    step(context, 0, 1, [5])
    with pytest.raises(InvalidBatch, match="256 cells"):
        step(context, 0, 1, [5])
    step(context, 1, 1, [5])


def test_results_stand_in_the_order_of_the_chunks(context: Context) -> None:
    for name in range(4):
        context.open_sequence(name, name, GREEDY)
    chunks = [
        Chunk(3, 3, 0, [5, 6], SampleMode.TOKEN),
        Chunk(1, 1, 0, [7], SampleMode.NONE),
        Chunk(2, 2, 0, [8, 9, 10], SampleMode.LOGITS),
        Chunk(0, 0, 0, [5, 6], SampleMode.TOKEN),
    ]
    sampled = context.decode_and_sample_batch(chunks)
    assert [(one.sequence_id, one.generation) for one in sampled] == [(3, 3), (2, 2), (0, 0)]
    assert sampled[0].token == sampled[2].token
    assert sampled[1].token == -1
    assert sampled[1].logits is not None
    assert len(sampled[1].logits) == 4 * 2048
    assert [context.position(name) for name in range(4)] == [2, 1, 3, 2]


def test_sampling_a_logits_row_by_hand_equals_sampling_it_at_once(context: Context) -> None:
    sampling = SamplingParameters(seed=11, repeat_penalty=1.2, logprobs=2)
    expected = run(context, sampling, 10)
    context.open_sequence(0, 1, sampling, history=PROMPT)
    got: list[Sampled] = []
    tokens = PROMPT
    for _ in range(10):
        (row,) = logits(context, [logits_chunk(context, 0, 1, tokens)])
        got.append(context.sample_logits(0, 1, row))
        tokens = [got[-1].token]
    assert got == expected


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_logits_row_that_cannot_be_sampled_is_an_error_of_its_own(context: Context, value: float) -> None:
    context.open_sequence(0, 1, SamplingParameters(seed=1))
    row = np.zeros(2048, np.float32)
    row[7] = value
    sampled = context.sample_logits(0, 1, row.tobytes())
    assert sampled.token == -1
    assert sampled.error
    banned = context.sample_logits(0, 1, np.full(2048, -np.inf, np.float32).tobytes())
    assert banned.error
    row[7] = 1.0
    assert context.sample_logits(0, 1, row.tobytes()).error is None


def test_a_logits_row_of_the_wrong_length_is_refused(context: Context) -> None:
    context.open_sequence(0, 1, GREEDY)
    for wrong in (b"", bytes(4 * 2047), bytes(4 * 2048 + 1), "x", None):
        with pytest.raises(InvalidParameter, match="logits"):
            context.sample_logits(0, 1, wrong)  # type: ignore[arg-type]


def test_an_abort_before_the_call_ends_it_and_changes_nothing(context: Context) -> None:
    expected = tokens_of(run(context, GREEDY, 12))
    context.open_sequence(0, 1, GREEDY, history=PROMPT)
    context.open_sequence(1, 1, GREEDY, history=PROMPT)
    tokens = [step(context, 0, 1, PROMPT).token]
    while len(tokens) < 12:
        context.abort()
        with pytest.raises(DecodeAborted):
            context.decode_and_sample_batch(
                [
                    Chunk(0, 1, context.position(0), tokens[-1:], SampleMode.TOKEN),
                    Chunk(1, 1, context.position(1), [5] * 20, SampleMode.TOKEN),
                ]
            )
        context.clear_abort()
        assert context.position(0) == len(PROMPT) + len(tokens) - 1
        assert context.position(1) == 0
        tokens.append(step(context, 0, 1, tokens[-1:]).token)
    assert tokens == expected


def test_an_abort_is_not_logged_as_an_error(context: Context) -> None:
    context.open_sequence(0, 1, GREEDY, history=PROMPT)
    context.abort()
    with capture_logs() as logs, pytest.raises(DecodeAborted):
        context.decode_and_sample_batch([Chunk(0, 1, 0, PROMPT, SampleMode.TOKEN)])
    context.clear_abort()
    assert any("decode" in entry["event"] for entry in logs)
    assert {entry["log_level"] for entry in logs} == {"debug"}


def test_an_abort_from_another_thread_ends_a_long_call(make_context: Callable[..., Context]) -> None:
    context = make_context(n_ctx=4096, n_seq_max=2, n_batch=4096, n_ubatch=4096)
    context.open_sequence(0, 1, GREEDY)
    context.open_sequence(1, 1, GREEDY)
    decode(context, 0, 1, [5, 6, 7])
    chunk = Chunk(1, 1, 0, [5] * 4000, SampleMode.TOKEN)
    timer = threading.Timer(0.01, context.abort)
    timer.start()
    with pytest.raises(DecodeAborted):
        context.decode_and_sample_batch([chunk])
    timer.join()
    context.clear_abort()
    assert (context.position(0), context.position(1)) == (3, 0)
    step(context, 1, 1, [5, 6])


def test_a_freed_context_refuses_everything(make_context: Callable[..., Context]) -> None:
    context = make_context()
    context.open_sequence(0, 1, SamplingParameters(seed=1, dry_multiplier=0.5))
    context.free()
    context.free()
    assert "freed" in repr(context)
    for call in (
        lambda: context.decode_and_sample_batch([Chunk(0, 1, 0, [1], 1)]),
        lambda: context.open_sequence(0, 2, GREEDY),
        lambda: context.release_sequence(0, 1),
        lambda: context.sample_logits(0, 1, b""),
        lambda: context.position(0),
        context.sizes,
    ):
        with pytest.raises(InvalidBatch, match="freed"):
            call()
    context.abort()


def test_opening_and_releasing_many_sequences_keeps_memory_flat(context: Context) -> None:
    sampling = SamplingParameters(seed=1, dry_multiplier=0.5, xtc_probability=0.5, repeat_penalty=1.1)
    process = psutil.Process()

    def churn(rounds: int) -> int:
        for generation in range(rounds):
            context.open_sequence(generation % 8, generation, sampling, history=PROMPT)
            step(context, generation % 8, generation, [5])
        gc.collect()
        return int(process.memory_info().rss)

    churn(100)
    before = churn(100)
    assert churn(600) - before < 8 * 2**20


def test_log_probabilities_are_those_of_the_raw_row(context: Context) -> None:
    sampling = SamplingParameters(seed=5, temperature=0.5, logit_bias={9: 2.0}, logprobs=4)
    (sampled,) = run(context, sampling, 1)
    context.open_sequence(0, 1, sampling)
    (data,) = logits(context, [logits_chunk(context, 0, 1, PROMPT)])
    row = as_row(data).astype(np.float64)
    expected = row - row.max() - np.log(np.exp(row - row.max()).sum())
    assert sampled.logprob == pytest.approx(expected[sampled.token], abs=1e-5)
    assert [token for token, _ in sampled.top] == np.argsort(-row, kind="stable")[:4].tolist()
    assert [value for _, value in sampled.top] == pytest.approx(sorted(expected, reverse=True)[:4], abs=1e-5)
