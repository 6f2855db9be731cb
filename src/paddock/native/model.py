"""One llama.cpp model: loaded from a checked file, its vocabulary made safe to call.

llama.cpp aborts the process on a token id outside the vocabulary, on a vocabulary without the special token
that it is told to add, and on a few other inputs; every method here checks first.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from paddock.errors import InvalidConfiguration, InvalidParameter, ModelLoadFailed
from paddock.models.facts import ModelFacts, facts_of
from paddock.models.gguf_header import read_header
from paddock.native import library
from paddock.native.grammar import GrammarLibrary
from paddock.text.pieces import PieceTable

__all__ = ["ModelLoadParameters", "NativeModel", "SpecialTokens"]

_LOAD_MODES = {"auto": -1, "none": 0, "mmap": 1, "mlock": 2, "mmap_mlock": 3, "direct_io": 4}
_ATTR_HIDDEN = 1 << 0 | 1 << 3  # UNKNOWN, CONTROL: pieces that are empty unless special tokens are rendered
_ATTR_NORMAL = 1 << 2
_MAX_TEXT = 2**30
_WORDPIECE = 3  # LLAMA_VOCAB_TYPE_WPM


def _layers(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not -1 <= value < 2**31:
        raise InvalidConfiguration(attribute.name, f"{value!r} is not an integer from -1 (all) on")


def _load_mode(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value not in _LOAD_MODES:
        raise InvalidConfiguration(attribute.name, f"{value!r} is not one of {', '.join(_LOAD_MODES)}")


def _flag(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, bool):
        raise InvalidConfiguration(attribute.name, f"{value!r} is not true or false")


@attrs.frozen(kw_only=True)
class ModelLoadParameters:
    """How llama.cpp loads the file. ``n_gpu_layers``: -1 is all. ``load_mode``: one of auto, none, mmap,
    mlock, mmap_mlock, direct_io. ``use_extra_bufts``: repack weights for the CPU (faster, other rounding
    for some types).
    """

    n_gpu_layers: int = attrs.field(default=0, validator=_layers)
    use_extra_bufts: bool = attrs.field(default=False, validator=_flag)
    load_mode: str = attrs.field(default="mmap", validator=_load_mode)
    vocab_only: bool = attrs.field(default=False, validator=_flag)


@attrs.frozen(kw_only=True)
class SpecialTokens:
    """Token ids of the vocabulary's special tokens; None for one that it has not. ``eog``: all that end a
    text.
    """

    bos: int | None
    eos: int | None
    eot: int | None
    nl: int | None
    sep: int | None
    pad: int | None
    mask: int | None
    fim_pre: int | None
    fim_suf: int | None
    fim_mid: int | None
    fim_pad: int | None
    fim_rep: int | None
    fim_sep: int | None
    eog: frozenset[int]
    add_bos: bool
    add_eos: bool


_SPECIAL_NAMES = (
    "bos", "eos", "eot", "nl", "sep", "pad", "mask",
    "fim_pre", "fim_suf", "fim_mid", "fim_pad", "fim_rep", "fim_sep",
)  # fmt: skip


class NativeModel:
    """A loaded model. The vocabulary's methods may be called from any thread; ``free`` only when nobody
    else does.
    """

    def __init__(self, lib: Any, pointer: Any, facts: ModelFacts) -> None:
        self._lib = lib
        self.pointer = pointer
        self.facts = facts
        self.vocabulary = lib.llama_model_get_vocab(pointer)
        self.n_vocab = int(lib.llama_vocab_n_tokens(self.vocabulary))
        self.memory_class = self._memory_class()
        self.special_tokens = self._special_tokens()
        self.suppressed_tokens = self._suppressed_tokens()
        self._adds_special = self._can_add_special()
        self._piece_table: PieceTable | None = None
        self._piece_lock = threading.Lock()
        self.grammars = GrammarLibrary(self)

    @classmethod
    def load(
        cls,
        path: str | Path,
        parameters: ModelLoadParameters | Mapping[str, Any] = ModelLoadParameters(),
        progress: Callable[[float], bool] | None = None,
    ) -> NativeModel:
        """Checks the file's header, then loads it. ``progress`` gets 0..1 and ends the load by returning
        False.

        Raises :class:`paddock.errors.ModelNotFound`, :class:`paddock.errors.InvalidModelFile` (and its
        kinds) before llama.cpp sees the file, and :class:`paddock.errors.ModelLoadFailed` with llama.cpp's
        last words after. Blocks the calling thread for as long as the load takes.
        """
        if isinstance(parameters, Mapping):
            parameters = ModelLoadParameters(**parameters)
        path = Path(path)
        facts = facts_of(read_header(path))
        lib = library.load()
        raised: list[BaseException] = []

        def report(fraction: float, _: object) -> bool:
            try:
                return progress is None or bool(progress(fraction))
            except BaseException as error:  # must not travel through C++; raised again below
                raised.append(error)
                return False

        native = lib.llama_model_default_params()
        native.n_gpu_layers = parameters.n_gpu_layers
        native.use_extra_bufts = parameters.use_extra_bufts
        native.load_mode = _LOAD_MODES[parameters.load_mode]
        native.vocab_only = parameters.vocab_only
        native.progress_callback = lib.llama_progress_callback(report)
        library.forget_last_words()
        pointer = lib.llama_model_load_from_file(bytes(path), native)
        if raised:
            if pointer:
                lib.llama_model_free(pointer)
            raise raised[0]
        if not pointer:
            raise ModelLoadFailed(facts.name, library.last_words() or "the load was cancelled")
        try:
            return cls(lib, pointer, facts)
        except BaseException:
            lib.llama_model_free(pointer)
            raise

    def _memory_class(self) -> str:
        """As llama.cpp sees it, which knows defaults that the header need not hold."""
        if self._lib.llama_model_is_hybrid(self.pointer):
            return "hybrid"
        if self._lib.llama_model_is_recurrent(self.pointer):
            return "recurrent"
        if self._lib.llama_model_n_swa(self.pointer) > 0:
            return "sliding_window"
        return "attention"

    def _special_tokens(self) -> SpecialTokens:
        found: dict[str, int | None] = {}
        for name in _SPECIAL_NAMES:
            token = int(getattr(self._lib, f"llama_vocab_{name}")(self.vocabulary))
            found[name] = token if 0 <= token < self.n_vocab else None
        is_eog = self._lib.llama_vocab_is_eog
        return SpecialTokens(
            **found,
            eog=frozenset(token for token in range(self.n_vocab) if is_eog(self.vocabulary, token)),
            add_bos=bool(self._lib.llama_vocab_get_add_bos(self.vocabulary)),
            add_eos=bool(self._lib.llama_vocab_get_add_eos(self.vocabulary)),
        )

    def _can_add_special(self) -> bool:
        """False where the file asks for special tokens that it does not define: llama.cpp would abort."""
        special = self.special_tokens
        if self._lib.llama_vocab_type(self.vocabulary) == _WORDPIECE:
            return special.bos is not None and special.sep is not None
        return not (special.add_bos and special.bos is None) and not (special.add_eos and special.eos is None)

    def _suppressed_tokens(self) -> tuple[int, ...]:
        """Tokens that the model file says are never to be drawn."""
        count = ctypes.c_int32(0)
        tokens = self._lib.llama_vocab_get_suppress_tokens(self.vocabulary, ctypes.byref(count))
        return tuple(token for token in (tokens[i] for i in range(count.value)) if 0 <= token < self.n_vocab)

    def tokenize(self, text: bytes, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids of UTF-8 ``text``. ``add_special`` adds BOS/EOS where the model wants (and has) them;
        ``parse_special`` reads special tokens written out in the text (never for text from outside). Any
        thread.

        Raises :class:`paddock.errors.InvalidParameter` for a text of more than 1 GiB.
        """
        if not isinstance(text, bytes | bytearray) or len(text) > _MAX_TEXT:
            raise InvalidParameter("text", text[:20], "UTF-8 bytes, at most 1 GiB")
        add_special = add_special and self._adds_special
        data = bytes(text)
        capacity = len(data) // 2 + 16
        for _ in range(2):
            buffer = (ctypes.c_int32 * capacity)()
            count = self._lib.llama_tokenize(
                self.vocabulary, data, len(data), buffer, capacity, add_special, parse_special
            )
            if count >= 0:
                return buffer[:count]
            capacity = -count
        raise InvalidParameter("text", data[:20], "a text with fewer than 2**31 tokens")

    def detokenize(self, tokens: Sequence[int], remove_special: bool = False, unparse_special: bool = False) -> bytes:
        """The bytes of a whole sequence of tokens. ``unparse_special`` renders special tokens. Any thread."""
        for token in tokens:
            if not 0 <= token < self.n_vocab:
                raise InvalidParameter("tokens", token, f"token ids below {self.n_vocab}")
        array = (ctypes.c_int32 * len(tokens))(*tokens)
        capacity = len(tokens) * 8 + 16
        for _ in range(2):
            buffer = ctypes.create_string_buffer(capacity)
            size = self._lib.llama_detokenize(
                self.vocabulary, array, len(tokens), buffer, capacity, remove_special, unparse_special
            )
            if size >= 0:
                return buffer.raw[:size]
            capacity = -size
        raise InvalidParameter("tokens", len(tokens), "tokens of fewer than 2**31 bytes")

    def piece_table(self) -> PieceTable:
        """The bytes of every token, and which tokens are control and end-of-generation tokens. Computed
        once.
        """
        with self._piece_lock:
            if self._piece_table is None:
                self._piece_table = self._make_piece_table()
            return self._piece_table

    def _make_piece_table(self) -> PieceTable:
        to_piece = self._lib.llama_token_to_piece
        capacity = 256
        buffer = ctypes.create_string_buffer(capacity)
        pieces: list[bytes] = []
        for token in range(self.n_vocab):
            size = to_piece(self.vocabulary, token, buffer, capacity, 0, True)
            if size < 0:
                capacity = -size
                buffer = ctypes.create_string_buffer(capacity)
                size = to_piece(self.vocabulary, token, buffer, capacity, 0, True)
            pieces.append(ctypes.string_at(buffer, max(size, 0)))
        attributes = self._lib.llama_vocab_get_attr
        kinds = [attributes(self.vocabulary, token) for token in range(self.n_vocab)]
        return PieceTable.from_pieces(
            pieces,
            control=[token for token, kind in enumerate(kinds) if kind & _ATTR_HIDDEN],
            eog=self.special_tokens.eog,
            add_space_prefix=self._strips_first_space(pieces, kinds),
            clean_spaces=self.detokenize(self.tokenize(b"a ?", False, False)).endswith(b"a?"),
        )

    def _strips_first_space(self, pieces: list[bytes], kinds: list[int]) -> bool:
        """Whether detokenizing takes the space off the start of a text (llama.cpp has no call that says
        so).
        """
        for token, (piece, kind) in enumerate(zip(pieces, kinds, strict=True)):
            if kind & _ATTR_NORMAL and piece.startswith(b" ") and len(piece) > 1:
                return not self.detokenize([token]).startswith(b" ")
        return False

    @property
    def eog_ids(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.array(sorted(self.special_tokens.eog), np.int64)

    def free(self) -> None:
        """Frees the weights; every context of the model must be freed before. Idempotent."""
        pointer, self.pointer = self.pointer, None
        if pointer is not None:
            self._lib.llama_model_free(pointer)

    def __repr__(self) -> str:
        state = "freed" if self.pointer is None else "loaded"
        return f"<NativeModel {self.facts.name!r} {state} {self.n_vocab} tokens>"
