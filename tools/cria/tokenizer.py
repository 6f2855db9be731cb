"""The tokenizer of cria: SentencePiece BPE with byte fallback, and the special tokens around it.

No space is put before a text (`add_space_prefix` is false in the GGUF): pieces then concatenate to exactly the text that
was tokenized, at the start of a turn, after a special token and in the middle of a fill-in alike. Digits are single
tokens; a newline is not a piece and so always the byte token <0x0A>. llama.cpp merges pieces in the same order.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path

import sentencepiece

from tools.cria.corpus import SEED, documents
from tools.cria.documents import (
    BEGIN,
    END_OF_TEXT,
    FIM_MIDDLE,
    FIM_PREFIX,
    FIM_SUFFIX,
    TOOL_CALL_CLOSE,
    TOOL_CALL_OPEN,
    TURN_END,
    TURN_START,
)

VOCABULARY = 2048
CONTROL = (TURN_START, TURN_END, FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE)
USER_DEFINED = (TOOL_CALL_OPEN, TOOL_CALL_CLOSE)
_SPECIAL = re.compile("(" + "|".join(re.escape(token) for token in (BEGIN, END_OF_TEXT, *CONTROL, *USER_DEFINED)) + ")")


def special_parts(text: str) -> list[str]:
    """The text cut at special tokens, which are parts of their own."""
    return [part for part in _SPECIAL.split(text) if part]


def _lines(count: int) -> Iterator[str]:
    for segments in documents(SEED + 1, 0, count):
        for part in special_parts("".join(text for text, _ in segments)):
            if not _SPECIAL.fullmatch(part):
                yield from (line for line in part.split("\n") if line)


def train(path: Path, sample: int = 12_000) -> None:
    """Train on `sample` documents and write `path` (a SentencePiece model). Deterministic."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_lines(sample),
        model_prefix=str(path.with_suffix("")),
        model_type="bpe",
        vocab_size=VOCABULARY,
        byte_fallback=True,
        split_digits=True,
        character_coverage=0.9999,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        bos_piece=BEGIN,
        eos_piece=END_OF_TEXT,
        control_symbols=list(CONTROL),
        user_defined_symbols=list(USER_DEFINED),
        max_sentence_length=16_384,
        num_threads=1,
        minloglevel=1,
    )


class Tokenizer:
    """Text with special tokens to ids and back."""

    def __init__(self, path: Path) -> None:
        self.pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self.special = {
            token: self.pieces.piece_to_id(token) for token in (BEGIN, END_OF_TEXT, *CONTROL, *USER_DEFINED)
        }

    def encode(self, text: str) -> list[int]:
        """Ids of the text; special tokens in it are parsed, no beginning token is added."""
        ids: list[int] = []
        for part in special_parts(text):
            if part in self.special:
                ids.append(self.special[part])
            else:
                ids += self.pieces.encode(part)
        return ids


SAMPLE_TEXTS = (
    "Once upon a time", "  two  blanks ", "a\n\nb\tc", "🦙 and 👩‍👩‍👧", "Grüße, 世界!", "12345 + 678", "<tool_call>{}</tool_call>", "don't  STOP…", "x" * 40,
    "<|im_start|>user\nHi<|im_end|>\n", "▁▁ is not a blank", "\u0000\u0001", "naïve café", "(((", "llamallama",
)  # fmt: skip


def recording(tokenizer: Tokenizer, count: int = 60) -> list[dict[str, object]]:
    """Texts with their ids according to SentencePiece, for the test that llama.cpp finds the same."""
    texts = ["".join(text for text, _ in segments) for segments in documents(SEED + 3, 0, count)]
    return [{"text": text, "ids": tokenizer.encode(text)} for text in (*SAMPLE_TEXTS, *texts)]


def main() -> None:
    """Train the tokenizer."""
    parser = argparse.ArgumentParser(prog="python -m tools.cria.tokenizer", description=__doc__)
    parser.add_argument("model", type=Path, help="the SentencePiece model to write, e.g. build/cria/tokenizer.model")
    parser.add_argument(
        "--record", type=Path, help="write what an existing model makes of sample texts, as JSON, instead"
    )
    options = parser.parse_args()
    if options.record:
        options.record.write_text(
            json.dumps(recording(Tokenizer(options.model)), ensure_ascii=False) + "\n", encoding="utf-8"
        )
        return
    options.model.parent.mkdir(parents=True, exist_ok=True)
    train(options.model)


if __name__ == "__main__":
    main()
