"""Vocabulary-only models with the special tokens of a chat: SentencePiece with and without a space prefix, and BPE."""

from __future__ import annotations

from pathlib import Path

import gguf

SPECIAL = ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
_WORDS = (" the", "the", "llama", " llama", " is", " user", "user", "assistant", " a", "a", ".", ",", " .", "system",
          " joke", "\n\n", "it", "'s", " it", "  ", "日本", "🦙")  # fmt: skip
_NORMAL, _CONTROL, _UNKNOWN, _BYTE = (int(gguf.TokenType[name]) for name in ("NORMAL", "CONTROL", "UNKNOWN", "BYTE"))


def build(path: Path, kind: str) -> Path:
    """``kind``: spm, spm-prefix, bpe."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(32)
    if kind == "bpe":
        _add_bpe(writer)
    else:
        _add_sentencepiece(writer, space_prefix=kind == "spm-prefix")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_sentencepiece(writer: gguf.GGUFWriter, *, space_prefix: bool) -> None:
    tokens = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [_UNKNOWN, *[_CONTROL] * 4, *[_BYTE] * 256]
    for word in [*_WORDS, " "]:
        whole = word.replace(" ", "▁")
        for text in [whole[: length + 1] for length in reversed(range(len(whole)))]:  # merging needs all prefixes
            if text not in tokens:
                tokens.append(text)
                types.append(_NORMAL)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(index) for index in range(len(tokens))])
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(4)
    writer.add_unk_token_id(0)
    writer.add_add_space_prefix(space_prefix)


def _add_bpe(writer: gguf.GGUFWriter) -> None:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {byte: chr(byte) for byte in printable}
    for extra, byte in enumerate(byte for byte in range(256) if byte not in alphabet):
        alphabet[byte] = chr(0x100 + extra)
    tokens = [alphabet[byte] for byte in range(256)]
    merges: list[str] = []
    for word in _WORDS:
        symbols = [alphabet[byte] for byte in word.encode()]
        for length in range(1, len(symbols)):
            left, right = "".join(symbols[:length]), symbols[length]
            if left + right not in tokens:
                merges.append(f"{left} {right}")
                tokens.append(left + right)
    types = [_NORMAL] * len(tokens) + [_CONTROL] * 4
    tokens += SPECIAL[1:]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokens.index("<s>"))
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
