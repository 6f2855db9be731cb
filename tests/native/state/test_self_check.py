"""At load it is found out by doing it whether states can be stored in blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from decoding import decode, logits, logits_chunk

from paddock.errors import SequenceStateError
from paddock.native.context import Context
from paddock.native.state.self_check import check_state
from paddock.sampling import SamplingParameters

GREEDY = SamplingParameters(temperature=0, seed=0)


@pytest.mark.parametrize(
    "settings",
    [{}, {"flash_attention": True, "type_v": "bf16"}, {"n_seq_max": 1}, {"n_batch": 1}, {"kv_unified": True}],
    ids=["canonical", "invariant", "one-sequence", "one-row", "unified"],
)
def test_a_models_states_are_found_to_be_stored_in_blocks(
    make_context: Callable[..., Context], settings: dict[str, Any]
) -> None:
    context = make_context(**settings)
    support = check_state(context, 2048)
    assert (support.kind, support.problem) == ("blocks", "")
    assert support.layout is not None
    assert support.layout.token_bytes == 4 * 2 * 128 * 2  # layers, K and V, width, F16


def test_the_check_leaves_the_sequences_empty_and_the_logits_as_they_are(make_context: Callable[..., Context]) -> None:
    def rows(context: Context) -> list[bytes]:
        found: list[bytes] = []
        for sequence_id in (0, 7):
            context.open_sequence(sequence_id, 1, GREEDY)
            decode(context, sequence_id, 1, range(5, 40))
            found += logits(context, [logits_chunk(context, sequence_id, 1, [50, 51])])
        return found

    checked, unchecked = make_context(), make_context()
    check_state(checked, 2048)
    assert [checked.position(sequence_id) for sequence_id in range(8)] == [0] * 8
    assert rows(checked) == rows(unchecked)


def test_a_layout_that_cannot_be_cut_is_a_snapshot(
    make_context: Callable[..., Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a version of llama.cpp would that has begun to write its cells in another way.
    monkeypatch.setattr("paddock.native.state.layout._MAGIC", 0)
    support = check_state(make_context(), 2048)
    assert (support.kind, support.layout) == ("snapshot", None)
    assert "not laid out as expected" in support.problem


def test_a_context_whose_states_cannot_be_read_has_none(
    make_context: Callable[..., Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make_context()

    def none(sequence_id: int, generation: int, take: object = None) -> NoReturn:
        raise SequenceStateError("llama.cpp gives none")

    monkeypatch.setattr(context, "save_state", none)
    support = check_state(context, 2048)
    assert (support.kind, support.layout) == ("none", None)
    assert "llama.cpp gives none" in support.problem
    assert context.position(7) == 0
