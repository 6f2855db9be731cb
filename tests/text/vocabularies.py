"""Vocabulary-only GGUF files for the real llama.cpp: SentencePiece and byte-level BPE, with each whitespace rule."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import gguf

NORMAL = int(gguf.TokenType.NORMAL)
CONTROL = int(gguf.TokenType.CONTROL)
UNKNOWN = int(gguf.TokenType.UNKNOWN)
BYTE = int(gguf.TokenType.BYTE)
USER_DEFINED = int(gguf.TokenType.USER_DEFINED)

# Pieces that meet each clean-up rule of llama_detokenize, alone and across borders, plus ordinary ones.
_WORDS = (
    """
 the| a|the|it|s|m|re|ve|ll|t|d|'s|'re|'m|'ve|'ll|'t|'| '| 's| re| 're| 'll| ' |' |''| .|.| ,|,| ?|?| !|!|  |   |x ' s|
 'x|r|v|e| r| v|é|日本|🦙| 🦙
""".strip("\n")
    .replace("|\n", "|")
    .split("|")
)


def byte_level_alphabet() -> dict[int, str]:
    """GPT-2's printable stand-in for each byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {byte: chr(byte) for byte in printable}
    for extra, byte in enumerate(byte for byte in range(256) if byte not in table):
        table[byte] = chr(0x100 + extra)
    return table


def _writer(path: Path) -> gguf.GGUFWriter:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(32)
    return writer


def _finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def build_sentencepiece(path: Path, *, space_prefix: bool) -> Path:
    tokens = ["<unk>", "<s>", "</s>", "<|tool|>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    types = [UNKNOWN, CONTROL, CONTROL, USER_DEFINED] + [BYTE] * 256
    for word in _WORDS:
        text = word.replace(" ", "▁")
        if text not in tokens:
            tokens.append(text)
            types.append(NORMAL)
    tokens.append("▁")
    types.append(NORMAL)
    writer = _writer(path)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(index) for index in range(len(tokens))])
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_space_prefix(space_prefix)
    _finish(writer)
    return path


def build_byte_level_bpe(path: Path, *, pre_tokenizer: str) -> Path:
    alphabet = byte_level_alphabet()
    tokens = [alphabet[byte] for byte in range(256)]
    types = [NORMAL] * 256
    merges: list[str] = []
    for word in _WORDS:
        symbols = [alphabet[byte] for byte in word.encode()]
        for left, right in pairwise(symbols):
            if f"{left} {right}" not in merges:
                merges.append(f"{left} {right}")
        for length in range(2, len(symbols) + 1):
            text = "".join(symbols[:length])
            if text not in tokens:
                tokens.append(text)
                types.append(NORMAL)
    for special in ("<|bos|>", "<|eos|>", "<|im_end|>"):
        tokens.append(special)
        types.append(CONTROL)
    tokens.append("<tool>")
    types.append(USER_DEFINED)
    writer = _writer(path)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokens.index("<|bos|>"))
    writer.add_eos_token_id(tokens.index("<|eos|>"))
    _finish(writer)
    return path
