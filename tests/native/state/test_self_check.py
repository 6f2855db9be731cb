"""At load it is found out by doing it whether states can be stored in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from architectures import build_gemma2, build_mamba, build_qwen2vl
from decoding import decode, logits, logits_chunk

from paddock.errors import SequenceStateError
from paddock.native.context import Context
from paddock.native.model import NativeModel
from paddock.native.state.blocks import assemble, cut
from paddock.native.state.layout import parse_state
from paddock.native.state.self_check import check_state
from paddock.sampling import SamplingParameters

GREEDY = SamplingParameters(temperature=0, seed=0)


@pytest.mark.parametrize(
    "settings",
    [{}, {"flash_attention": True, "type_v": "bf16"}, {"n_seq_max": 1}, {"n_batch": 1}, {"kv_unified": True}],
    ids=["canonical", "invariant", "one-sequence", "one-row", "unified"],
)
def test_a_models_states_are_found_to_be_stored_in_blocks(
    model: NativeModel, make_context: Callable[..., Context], settings: dict[str, Any]
) -> None:
    context = make_context(**settings)
    support = check_state(context, model)
    assert (support.kind, support.problem) == ("blocks", "")
    assert support.layout is not None
    assert support.layout.token_bytes == 4 * 2 * 128 * 2  # layers, K and V, width, F16


def test_the_check_leaves_the_sequences_empty_and_the_logits_as_they_are(
    model: NativeModel, make_context: Callable[..., Context]
) -> None:
    def rows(context: Context) -> list[bytes]:
        found: list[bytes] = []
        for sequence_id in (0, 7):
            context.open_sequence(sequence_id, 1, GREEDY)
            decode(context, sequence_id, 1, range(5, 40))
            found += logits(context, [logits_chunk(context, sequence_id, 1, [50, 51])])
        return found

    checked, unchecked = make_context(), make_context()
    check_state(checked, model)
    assert [checked.position(sequence_id) for sequence_id in range(8)] == [0] * 8
    assert rows(checked) == rows(unchecked)


def test_a_layout_that_cannot_be_cut_is_a_snapshot(
    model: NativeModel, make_context: Callable[..., Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a version of llama.cpp would that has begun to write its cells in another way.
    monkeypatch.setattr("paddock.native.state.layout._MAGIC", 0)
    support = check_state(make_context(), model)
    assert (support.kind, support.layout) == ("snapshot", None)
    assert "not laid out as expected" in support.problem


def test_a_context_whose_states_cannot_be_read_has_none(
    model: NativeModel, make_context: Callable[..., Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make_context()

    def none(sequence_id: int, generation: int, take: object = None) -> NoReturn:
        raise SequenceStateError("llama.cpp gives none")

    monkeypatch.setattr(context, "save_state", none)
    support = check_state(context, model)
    assert (support.kind, support.layout) == ("none", None)
    assert "llama.cpp gives none" in support.problem
    assert context.position(7) == 0


# --- other architectures --------------------------------------------------------------------------------


@pytest.fixture
def load_model() -> Iterator[Callable[[Path], NativeModel]]:
    loaded: list[NativeModel] = []

    def load(path: Path) -> NativeModel:
        loaded.append(NativeModel.load(path))
        return loaded[-1]

    yield load
    for model in loaded:
        model.free()


@pytest.mark.parametrize(
    ("build", "memory_class"), [(build_gemma2, "sliding_window"), (build_mamba, "recurrent")], ids=["gemma2", "mamba"]
)
def test_memory_that_cannot_be_cut_is_saved_as_a_whole(
    load_model: Callable[[Path], NativeModel], tmp_path: Path, build: Callable[[Path], Path], memory_class: str
) -> None:
    model = load_model(build(tmp_path / "model.gguf"))
    context = Context.create(model, {"n_ctx": 256, "n_seq_max": 3, "n_threads": 1, "n_threads_batch": 1})
    support = check_state(context, model)
    context.free()
    assert (support.kind, support.layout) == ("snapshot", None)
    assert repr(memory_class) in support.problem


def test_cells_with_a_position_in_an_image_are_cut_too(
    load_model: Callable[[Path], NativeModel], tmp_path: Path
) -> None:
    model = load_model(build_qwen2vl(tmp_path / "model.gguf"))
    context = Context.create(model, {"n_ctx": 256, "n_seq_max": 3, "n_threads": 1, "n_threads_batch": 1})
    support = check_state(context, model)
    assert (support.kind, support.problem) == ("blocks", "")
    context.open_sequence(1, 1, GREEDY)
    decode(context, 1, 1, range(5, 45))
    state = context.save_state(1, 1)
    layout = parse_state(state).layout
    assert layout == support.layout
    assert layout.extended
    payload = np.empty(layout.payload_bytes(32), np.uint8)
    cut(layout, 1, 40, state, 0, 32, payload)
    restored = np.empty(layout.state_bytes(32), np.uint8)
    assemble(layout, 2, 32, [payload], restored)
    context.open_sequence(2, 1, GREEDY)
    context.restore_state(2, 1, restored, 32)
    decode(context, 2, 1, range(37, 45))
    rows = [logits(context, [logits_chunk(context, sequence_id, 1, [50, 51])]) for sequence_id in (1, 2)]
    context.free()
    assert rows[0] == rows[1]
