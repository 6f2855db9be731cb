"""Under the canonical schedule a sequence's logits are the same bytes whatever else is computed.

Prompt chunks (of two rows or more) in calls of their own, generated tokens as single rows: Q8_0, no flash attention.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from decoding import as_row, decode, logits, logits_chunk

from paddock.errors import DecodeAborted
from paddock.native.batch import Chunk, SampleMode
from paddock.native.context import Context
from paddock.sampling import SamplingParameters

GREEDY = SamplingParameters(temperature=0, seed=0)
STEPS = 8


def prompt_of(seed: int, length: int) -> list[int]:
    return random.Random(seed).choices(range(5, 2048), k=length)


def argmax(row: bytes) -> int:
    return int(as_row(row).argmax())


def prefill(context: Context, sequence_id: int, prompt: Sequence[int], chunk: int) -> bytes:
    """The prompt in chunks of ``chunk`` rows, the last one never shorter than two."""
    context.open_sequence(sequence_id, 1, GREEDY)
    at = 0
    while len(prompt) - at > chunk + 1:
        decode(context, sequence_id, 1, prompt[at : at + chunk])
        at += chunk
    return logits(context, [logits_chunk(context, sequence_id, 1, prompt[at:])])[0]


def alone(context: Context, prompt: Sequence[int], sequence_id: int = 0) -> list[bytes]:
    rows = [prefill(context, sequence_id, prompt, 512)]
    while len(rows) < STEPS:
        rows += logits(context, [logits_chunk(context, sequence_id, 1, [argmax(rows[-1])])])
    context.release_sequence(sequence_id, 1)
    return rows


def beside_others(
    context: Context, prompts: dict[int, list[int]], chunk: int, order: random.Random
) -> dict[int, list[bytes]]:
    """All sequences of ``prompts`` together; they join at random steps, so that ids have gaps on the way."""
    rows: dict[int, list[bytes]] = {}
    waiting = list(prompts)
    order.shuffle(waiting)
    while waiting or any(len(done) < STEPS for done in rows.values()):
        if waiting and (not rows or order.random() < 0.5):
            name = waiting.pop()
            rows[name] = [prefill(context, name, prompts[name], chunk)]
        running = [name for name, done in rows.items() if len(done) < STEPS]
        order.shuffle(running)
        if running:
            chunks = [logits_chunk(context, name, 1, [argmax(rows[name][-1])]) for name in running]
            for name, row in zip(running, logits(context, chunks), strict=True):
                rows[name].append(row)
    return rows


# Two threads on a busy machine of two cores wait for each other most of the time.
@pytest.mark.parametrize("n_threads", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("fill_gaps", [False, True])
def test_logits_do_not_depend_on_neighbours_ids_chunks_or_padding(
    make_context: Callable[..., Context], fill_gaps: bool, n_threads: int
) -> None:
    prompts = {name: prompt_of(name, 3 + 29 * name) for name in range(8)}
    single = make_context(n_seq_max=1)
    expected = {name: alone(single, prompt) for name, prompt in prompts.items()}
    context = make_context(
        n_seq_max=8, fill_gaps=fill_gaps, n_threads=n_threads, n_threads_batch=n_threads, n_batch=256
    )
    for chunk in (2, 17, 256):
        got = beside_others(context, prompts, chunk, random.Random(chunk))
        assert got == expected
        for name in prompts:
            context.release_sequence(name, 1)
    assert (context.padding_rows > 0) == fill_gaps


def test_padding_leaves_no_trace_in_the_sequence_that_it_borrows(make_context: Callable[..., Context]) -> None:
    context = make_context()
    prompt = prompt_of(1, 20)
    expected = alone(context, prompt, sequence_id=2)
    rows = [prefill(context, 2, prompt, 512)]
    others = (0, 1, 3, 4)  # enough of them for a gap to cost more than a padding row
    for name in others:
        context.open_sequence(name, 1, GREEDY)
        decode(context, name, 1, [5, 6])
    while len(rows) < STEPS:
        before = context.padding_rows
        context.decode_and_sample_batch([Chunk(name, 1, context.position(name), [7]) for name in others])
        assert context.padding_rows == before + 1
        assert context.position(2) == len(prompt) + len(rows) - 1
        rows += logits(context, [logits_chunk(context, 2, 1, [argmax(rows[-1])])])
    assert rows == expected


def test_padding_in_a_free_sequence_is_gone_when_it_is_opened(make_context: Callable[..., Context]) -> None:
    context = make_context()
    names = (0, 1, 3, 4)
    for name in names:
        context.open_sequence(name, 1, GREEDY)
    context.decode_and_sample_batch([Chunk(name, 1, 0, [7]) for name in names])
    assert context.padding_rows == 1
    context.open_sequence(2, 1, GREEDY)
    assert context.position(2) == 0
    context.decode_and_sample_batch([Chunk(2, 1, 0, [5, 6], SampleMode.TOKEN)])


def test_an_aborted_call_leaves_no_trace(make_context: Callable[..., Context]) -> None:
    context = make_context()
    prompt = prompt_of(2, 30)
    expected = alone(context, prompt, sequence_id=3)
    names = (0, 1, 3, 4)
    for name in names:
        context.open_sequence(name, 1, GREEDY)
        decode(context, name, 1, [5, 6])
    rows = [prefill(context, 3, prompt, 512)]
    while len(rows) < STEPS:
        chunks = [logits_chunk(context, name, 1, [argmax(rows[-1])]) for name in names]
        context.abort()
        with pytest.raises(DecodeAborted):
            context.decode_and_sample_batch(chunks)
        context.clear_abort()
        rows.append(logits(context, chunks)[2])
    assert rows == expected
    assert context.padding_rows == STEPS - 1
