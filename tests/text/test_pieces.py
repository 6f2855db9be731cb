from __future__ import annotations

from array import array

import numpy as np
import pytest

from paddock.text.pieces import PieceTable


def test_pieces_come_back_whatever_holds_the_offsets() -> None:
    pieces = [b"a", b"", b"<s>", "é".encode()]
    table = PieceTable.from_pieces(pieces, control={2}, eog={2})
    wire = np.asarray(table.offsets, np.uint32).tobytes()
    for offsets in (list(table.offsets), array("I", wire), np.frombuffer(wire, np.uint32)):
        again = PieceTable(table.data, offsets, control=[2])
        assert [again.piece(token) for token in range(again.n_vocab)] == pieces
    assert table.piece(2, skip_special=True) == b""
    assert table.eog == {2}


@pytest.mark.parametrize("offsets", [[], [1, 2], [0, 3, 2], [0, 1], [0, 4], [0.0, 2.0], [[0, 2]]])
def test_offsets_that_do_not_fit_the_data_are_refused(offsets: list[int]) -> None:
    with pytest.raises(ValueError, match="offsets"):
        PieceTable(b"ab", offsets)


@pytest.mark.parametrize("ids", [[-1], [2]])
def test_a_special_token_outside_the_vocabulary_is_refused(ids: list[int]) -> None:
    with pytest.raises(ValueError, match=r"outside 0\.\.1"):
        PieceTable.from_pieces([b"a", b"b"], eog=ids)


@pytest.mark.parametrize("token", [-1, 2, 2**40])
def test_an_unknown_token_is_an_index_error(token: int) -> None:
    with pytest.raises(IndexError, match="outside the vocabulary"):
        PieceTable.from_pieces([b"a", b"b"]).piece(token)
