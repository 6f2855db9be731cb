"""States cut into payloads and put together again: synthetic layouts, then what llama.cpp writes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoding import decode, logits, logits_chunk
from hypothesis import given
from hypothesis import strategies as st
from state_values import layouts, random_state, sequence_ids

from paddock.errors import InvalidBatch, SequenceStateError
from paddock.native.context import Context
from paddock.native.model import NativeModel
from paddock.native.state.blocks import assemble, cut
from paddock.native.state.layout import Bytes, Plane, StateLayout, parse_state
from paddock.sampling import SamplingParameters

GREEDY = SamplingParameters(temperature=0, seed=0)
CANONICAL: dict[str, Any] = {}
INVARIANT: dict[str, Any] = {"flash_attention": True, "type_k": "f16", "type_v": "bf16"}
CACHES: dict[str, dict[str, Any]] = {
    "f16": CANONICAL,
    "f16-bf16": INVARIANT,
    "f32": {"type_k": "f32", "type_v": "f32"},
    "q8_0": {"flash_attention": True, "type_k": "q8_0", "type_v": "q8_0"},
    "q8_0-f16": {"type_k": "q8_0"},
    "q4_0": {"flash_attention": True, "type_k": "q4_0", "type_v": "q4_0"},
    "unified": {"kv_unified": True},
}


def payloads_of(layout: StateLayout, sequence_id: int, n_tokens: int, state: Bytes, size: int) -> list[Bytes]:
    payloads: list[Bytes] = []
    for first in range(0, n_tokens, size):
        stop = min(first + size, n_tokens)
        payload = np.empty(layout.payload_bytes(stop - first), np.uint8)
        cut(layout, sequence_id, n_tokens, state, first, stop, payload)
        payloads.append(payload)
    return payloads


def assembled(layout: StateLayout, sequence_id: int, n_tokens: int, payloads: list[Bytes]) -> Bytes:
    state = np.full(layout.state_bytes(n_tokens), 0xEE, np.uint8)
    assemble(layout, sequence_id, n_tokens, payloads, state)
    return state


# --- synthetic ------------------------------------------------------------------------------------------


@given(st.data())
def test_cut_and_assembled_is_the_same_state(data: st.DataObject) -> None:
    layout = data.draw(layouts())
    sequence_id = data.draw(sequence_ids(layout))
    n_tokens = data.draw(st.integers(1, 20))
    state = random_state(layout, sequence_id, n_tokens, n_tokens)
    payloads = payloads_of(layout, sequence_id, n_tokens, state, data.draw(st.integers(1, 8)))
    assert sum(map(len, payloads)) == layout.payload_bytes(n_tokens)
    assert np.array_equal(assembled(layout, sequence_id, n_tokens, payloads), state)


@given(st.data())
def test_a_payload_depends_neither_on_the_sequence_nor_on_the_tokens_around(data: st.DataObject) -> None:
    layout = data.draw(layouts())
    one, other = data.draw(sequence_ids(layout)), data.draw(sequence_ids(layout))
    state = random_state(layout, one, 12, 3)
    payloads = payloads_of(layout, one, 12, state, 4)
    n_tokens = data.draw(st.integers(5, 8))  # the second payload is not used to its end
    shorter = assembled(layout, other, n_tokens, payloads[:2])
    again = payloads_of(layout, other, n_tokens, shorter, 4)
    assert np.array_equal(again[0], payloads[0])
    ends = [payload.reshape(4, -1)[: n_tokens - 4] for payload in _by_token(layout, payloads[1])]
    assert all(
        np.array_equal(mine, theirs.reshape(n_tokens - 4, -1))
        for mine, theirs in zip(ends, _by_token(layout, again[1]), strict=True)
    )


def _by_token(layout: StateLayout, payload: Bytes) -> Iterator[Bytes]:
    """Each run of a payload with its tokens in front."""
    n_tokens = len(payload) // layout.token_bytes
    offset = 0
    for run in layout.runs:
        size = run.count * run.rows * n_tokens * run.item_bytes
        shaped = payload[offset : offset + size].reshape(run.count, run.rows, n_tokens, run.item_bytes)
        yield np.ascontiguousarray(shaped.transpose(2, 0, 1, 3))
        offset += size


def test_what_does_not_fit_is_refused() -> None:
    layout = random_layout()
    state = random_state(layout, 0, 8, 0)
    payload = np.empty(layout.payload_bytes(4), np.uint8)
    for first, stop in ((-1, 3), (5, 9), (4, 4)):
        with pytest.raises(SequenceStateError):
            cut(layout, 0, 8, state, first, stop, payload[: layout.payload_bytes(max(stop - first, 0))])
    with pytest.raises(SequenceStateError):
        cut(layout, 0, 8, state, 0, 4, payload[:-1])
    with pytest.raises(SequenceStateError):
        cut(layout, 0, 8, state[:-1], 0, 4, payload)
    with pytest.raises(SequenceStateError):
        cut(layout, 0, 8, np.repeat(state, 2)[::2], 0, 4, payload)
    for payloads in ([], [payload], [payload[:-1], payload], [payload, payload, payload]):
        with pytest.raises(SequenceStateError):
            assembled(layout, 0, 8, payloads)
    for sequence_id in (-1, layout.n_streams):
        with pytest.raises(SequenceStateError):
            assembled(layout, sequence_id, 8, [payload, payload])
    with pytest.raises(SequenceStateError):
        assembled(layout, 0, 0, [])


def random_layout() -> StateLayout:
    return StateLayout(3, True, False, 2, (Plane(1, 1, 8), Plane(1, 1, 8), Plane(1, 4, 2), Plane(1, 4, 2)))


# --- llama.cpp's own ------------------------------------------------------------------------------------


@pytest.fixture(params=["q8_0", "q4_k_m", "f16", "scripted"], scope="module")
def any_model(request: pytest.FixtureRequest) -> Iterator[NativeModel]:
    paths: dict[str, Callable[[], Path]] = {
        "q8_0": lambda: request.getfixturevalue("tiny_model_path"),
        "q4_k_m": lambda: request.getfixturevalue("tiny_k_quant_model_path"),
        "f16": lambda: request.getfixturevalue("tiny_f16_model_path"),
        "scripted": lambda: request.getfixturevalue("scripted_model")(b"a llama"),
    }
    loaded = NativeModel.load(paths[request.param]())
    yield loaded
    loaded.free()


def prompt_of(length: int, n_vocab: int) -> list[int]:
    return random.Random(length).choices(range(5, n_vocab), k=length)


@pytest.mark.parametrize("cache", CACHES)
def test_real_states_are_parsed_cut_and_put_together_to_the_same_bytes(
    any_model: NativeModel, make_context: Callable[..., Context], cache: str
) -> None:
    context = make_context(any_model, n_ctx=512, n_seq_max=5, **CACHES[cache])
    n_tokens = 70
    for sequence_id in (0, 3, 4):
        context.open_sequence(sequence_id, 1, GREEDY)
        decode(context, sequence_id, 1, prompt_of(n_tokens, any_model.n_vocab))
    states = {sequence_id: context.save_state(sequence_id, 1) for sequence_id in (0, 3, 4)}
    for sequence_id, state in states.items():
        parsed = parse_state(state)
        assert (parsed.sequence_id, parsed.n_tokens) == (sequence_id, n_tokens)
        layout = parsed.layout
        assert layout.state_bytes(n_tokens) == len(state)
        payloads = payloads_of(layout, sequence_id, n_tokens, state, 16)
        assert np.array_equal(assembled(layout, sequence_id, n_tokens, payloads), state)
        for target in (1, 2):
            context.open_sequence(target, 1, GREEDY)
            expected = assembled(layout, target, n_tokens, payloads)
            context.restore_state(target, 1, expected, n_tokens)
            assert np.array_equal(context.save_state(target, 1), expected)
            context.release_sequence(target, 1)


@pytest.mark.parametrize("settings", [CANONICAL, INVARIANT], ids=["canonical", "invariant"])
@pytest.mark.parametrize("weights", ["q8_0", "q4_k_m"])
def test_a_sequence_restored_from_blocks_under_another_id_goes_on_bit_for_bit(
    request: pytest.FixtureRequest, make_context: Callable[..., Context], weights: str, settings: dict[str, Any]
) -> None:
    path = request.getfixturevalue("tiny_model_path" if weights == "q8_0" else "tiny_k_quant_model_path")
    model = NativeModel.load(path)
    try:
        first = make_context(model, **settings)
        prompt = prompt_of(150, model.n_vocab)
        first.open_sequence(2, 1, GREEDY)
        decode(first, 2, 1, prompt[:128])
        state = first.save_state(2, 1)
        expected = go_on(first, 2, prompt[128:])
        layout = parse_state(state).layout
        payloads = payloads_of(layout, 2, 128, state, 64)
        second = make_context(model, **settings)
        second.open_sequence(0, 1, GREEDY)  # a neighbour
        decode(second, 0, 1, prompt_of(33, model.n_vocab))
        for sequence_id in (7, 1):
            second.open_sequence(sequence_id, 5, GREEDY)
            second.restore_state(sequence_id, 5, assembled(layout, sequence_id, 128, payloads), 128)
            assert second.position(sequence_id) == 128
            assert go_on(second, sequence_id, prompt[128:], generation=5) == expected
        first.free()
        second.free()
    finally:
        model.free()


def go_on(context: Context, sequence_id: int, rest: list[int], generation: int = 1) -> list[bytes]:
    """Logits after the rest of a prompt, and of eight tokens more."""
    rows = logits(context, [logits_chunk(context, sequence_id, generation, rest)])
    while len(rows) < 9:
        token = int(np.frombuffer(rows[-1], np.float32).argmax())
        rows += logits(context, [logits_chunk(context, sequence_id, generation, [token])])
    return rows


# --- the context's own checks ---------------------------------------------------------------------------


def test_a_state_that_llama_cpp_refuses_leaves_the_sequence_empty_and_usable(context: Context) -> None:
    prompt = prompt_of(40, 2048)
    context.open_sequence(1, 1, GREEDY)
    decode(context, 1, 1, prompt)
    expected = go_on(context, 1, [7, 8])
    context.open_sequence(1, 2, GREEDY)
    decode(context, 1, 2, prompt)
    state = context.save_state(1, 2)
    foreign = state.copy()
    foreign[:4] = 0  # another magic
    wrong_type = state.copy()
    wrong_type[12 + 8 + 40 * 12 + 8] = 0  # K of another type
    for damaged, n_tokens in ((state[:-1], 40), (state[:100], 40), (foreign, 40), (wrong_type, 40), (state, 39)):
        context.open_sequence(3, 1, GREEDY)
        with pytest.raises(SequenceStateError):
            context.restore_state(3, 1, damaged, n_tokens)
        assert context.position(3) == 0
        decode(context, 3, 1, prompt)
        assert go_on(context, 3, [7, 8]) == expected


def test_only_an_open_and_empty_sequence_is_restored(context: Context) -> None:
    context.open_sequence(1, 1, GREEDY)
    decode(context, 1, 1, prompt_of(40, 2048))
    state = context.save_state(1, 1)
    with pytest.raises(InvalidBatch):
        context.restore_state(1, 1, state, 40)
    assert context.position(1) == 40
    with pytest.raises(InvalidBatch):
        context.restore_state(2, 1, state, 40)
    context.open_sequence(2, 9, GREEDY)
    for generation, n_tokens in ((8, 40), (9, 0), (9, 513)):
        with pytest.raises(InvalidBatch):
            context.restore_state(2, generation, state, n_tokens)
    with pytest.raises(InvalidBatch):
        context.save_state(1, 4)
    with pytest.raises(InvalidBatch):
        context.save_state(5, 1)
