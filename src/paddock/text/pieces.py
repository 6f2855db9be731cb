"""The vocabulary as bytes: which piece of text each token id stands for.

A worker sends this table once, when its model is loaded; every request of the model shares it. It is all that
the text layer knows of a tokenizer.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Sequence

import attrs
import numpy as np

__all__ = ["PieceTable"]


def _offsets(values: Sequence[int]) -> Sequence[int]:
    # An array of plain ints: 8 bytes an entry, and indexing gives Python ints (slicing by numpy's is slow).
    entries = np.asarray(values)
    if entries.ndim != 1 or len(entries) == 0 or entries.dtype.kind not in "iu" or entries[0] != 0:
        raise ValueError("offsets must be integers that begin with 0")
    if np.any(entries[1:] < entries[:-1]):
        raise ValueError("offsets must not decrease")
    result = array("Q")
    result.frombytes(entries.astype(np.uint64).tobytes())
    return result


def _ids(values: Collection[int]) -> frozenset[int]:
    return frozenset(values)


@attrs.frozen(eq=False, repr=False)
class PieceTable:
    """Token id -> bytes, for one vocabulary. Pieces are cut from ``data``, so the table costs no object per
    token.

    ``data``: all pieces back to back, as ``llama_token_to_piece(..., lstrip=0, special=True)`` gives them.
    ``offsets``: where each piece begins, n_vocab + 1 entries, from 0 to ``len(data)``, never decreasing.
    ``control``: ids whose piece is empty when special tokens are not shown (llama.cpp's CONTROL and UNKNOWN).
    ``eog``: ids that end a generation.
    ``add_space_prefix``: the tokenizer puts a space before the text, so detokenizing takes one off its start.
    ``clean_spaces``: detokenizing removes the space before ``? ! . ,`` and in ``" ' "``, ``" 's"`` and the
    like.
    """

    data: bytes
    offsets: Sequence[int] = attrs.field(converter=_offsets)
    control: frozenset[int] = attrs.field(default=frozenset(), converter=_ids)
    eog: frozenset[int] = attrs.field(default=frozenset(), converter=_ids)
    add_space_prefix: bool = False
    clean_spaces: bool = False

    def __attrs_post_init__(self) -> None:
        if self.offsets[-1] != len(self.data):
            raise ValueError(f"offsets end at {self.offsets[-1]}, but there are {len(self.data)} bytes")
        for name, ids in (("control", self.control), ("eog", self.eog)):
            if ids and not (min(ids) >= 0 and max(ids) < self.n_vocab):
                raise ValueError(f"{name} names a token outside 0..{self.n_vocab - 1}")

    @classmethod
    def from_pieces(
        cls,
        pieces: Iterable[bytes],
        *,
        control: Collection[int] = (),
        eog: Collection[int] = (),
        add_space_prefix: bool = False,
        clean_spaces: bool = False,
    ) -> PieceTable:
        """Builds the table from one bytes object per token id, in the order of the ids."""
        parts = list(pieces)
        offsets = [0]
        for part in parts:
            offsets.append(offsets[-1] + len(part))
        return cls(
            data=b"".join(parts),
            offsets=offsets,
            control=control,
            eog=eog,
            add_space_prefix=add_space_prefix,
            clean_spaces=clean_spaces,
        )

    @property
    def n_vocab(self) -> int:
        return len(self.offsets) - 1

    def piece(self, token: int, *, skip_special: bool = False) -> bytes:
        """The bytes of ``token``; none for a control token if ``skip_special``. IndexError for a wrong id."""
        if token < 0:
            raise IndexError(f"token {token} is outside the vocabulary of {self.n_vocab}")
        if skip_special and token in self.control:
            return b""
        try:
            return self.data[self.offsets[token] : self.offsets[token + 1]]
        except IndexError:
            raise IndexError(f"token {token} is outside the vocabulary of {self.n_vocab}") from None

    def __repr__(self) -> str:
        return f"<PieceTable of {self.n_vocab} tokens, {len(self.data)} bytes, {len(self.control)} control>"
