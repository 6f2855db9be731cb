"""Small GGUF models made on the spot: random ones, and scripted ones that emit a byte string of your choice.

Both are deterministic, need no network, and run on real llama.cpp. Nothing here stands in for llama.cpp.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Literal

import gguf
import numpy as np
import numpy.typing as npt

from paddock.native import library

UNKNOWN, BOS, EOS, IM_START, IM_END = range(5)
FIRST_BYTE = 5  # token id of byte 0x00; byte b is FIRST_BYTE + b
FIRST_PIECE = FIRST_BYTE + 256

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

WeightType = Literal["f32", "f16", "q8_0", "q4_0"]

_QUANTIZATION = {
    "f32": gguf.GGMLQuantizationType.F32,
    "f16": gguf.GGMLQuantizationType.F16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
    "q4_0": gguf.GGMLQuantizationType.Q4_0,
}
_FILE_TYPE = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0,
}

Vocabulary = tuple[list[bytes], list[float], list[int]]


def base_vocabulary() -> Vocabulary:
    """Texts, scores and types of five special and the 256 byte tokens of a SentencePiece vocabulary."""
    texts = [b"<unk>", b"<s>", b"</s>", b"<|im_start|>", b"<|im_end|>"]
    types = [int(gguf.TokenType.UNKNOWN)] + [int(gguf.TokenType.CONTROL)] * 4
    for byte in range(256):
        texts.append(b"<0x%02X>" % byte)
        types.append(int(gguf.TokenType.BYTE))
    return texts, [0.0] * len(texts), types


def _words() -> Iterator[str]:
    """Unique printable pieces, shortest first, with and without a leading space."""
    yield "▁"
    yield from (chr(code) for code in range(0x21, 0x7F))
    yield from "äöüßéλяж日本語🦙"
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    for length in (1, 2, 3, 4):
        for word in product(letters, repeat=length):
            if length > 1:
                yield "".join(word)
            yield "▁" + "".join(word)


def random_vocabulary(size: int) -> Vocabulary:
    """A SentencePiece vocabulary of ``size`` tokens: special, byte, then short words."""
    texts, scores, types = base_vocabulary()
    for rank, word in zip(range(size - len(texts)), _words(), strict=False):
        texts.append(word.encode())
        scores.append(-float(rank))
        types.append(int(gguf.TokenType.NORMAL))
    return texts, scores, types


class _LlamaWriter:
    """Writes the metadata and tensors of a llama-architecture model; the caller supplies the matrices."""

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        vocabulary: Vocabulary,
        n_layer: int,
        n_embd: int,
        n_head: int,
        n_head_kv: int,
        n_ff: int,
        n_ctx_train: int,
        weight_type: WeightType,
        chat_template: str | None,
        n_expert: int = 0,
    ) -> None:
        writer = gguf.GGUFWriter(path, "llama")
        if n_expert:
            writer.add_expert_count(n_expert)
            writer.add_expert_used_count(2)
        writer.add_name(name)
        writer.add_license("mit")
        writer.add_context_length(n_ctx_train)
        writer.add_embedding_length(n_embd)
        writer.add_block_count(n_layer)
        writer.add_feed_forward_length(n_ff)
        writer.add_head_count(n_head)
        writer.add_head_count_kv(n_head_kv)
        writer.add_rope_dimension_count(n_embd // n_head)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_file_type(_FILE_TYPE[weight_type])
        texts, scores, types = vocabulary
        writer.add_vocab_size(len(texts))
        writer.add_tokenizer_model("llama")
        writer.add_token_list(texts)
        writer.add_token_scores(scores)
        writer.add_token_types(types)
        writer.add_bos_token_id(BOS)
        writer.add_eos_token_id(EOS)
        writer.add_unk_token_id(UNKNOWN)
        writer.add_eot_token_id(IM_END)
        writer.add_add_bos_token(True)
        writer.add_add_space_prefix(False)
        if chat_template is not None:
            writer.add_chat_template(chat_template)
        self._writer = writer
        self._weight_type = weight_type

    def matrix(self, name: str, values: npt.NDArray[np.float32]) -> None:
        kind = _QUANTIZATION[self._weight_type]
        self._writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    def vector(self, name: str, values: npt.NDArray[np.float32]) -> None:
        self._writer.add_tensor(name, values)

    def close(self) -> None:
        self._writer.write_header_to_file()
        self._writer.write_kv_data_to_file()
        self._writer.write_tensors_to_file()
        self._writer.close()


def build_random_model(
    path: Path,
    *,
    weight_type: WeightType = "q8_0",
    n_layer: int = 4,
    n_embd: int = 256,
    n_head: int = 4,
    n_head_kv: int = 2,
    n_ff: int = 512,
    n_vocab: int = 2048,
    n_ctx_train: int = 4096,
    seed: int = 0,
    chat_template: str | None = CHATML,
    n_expert: int = 0,
) -> Path:
    """A llama-architecture model with random weights, scaled so that context matters, logits are not flat.

    With ``n_expert`` its feed-forward is a mixture of so many experts, two at a time, and its router is F32.
    """
    random = np.random.default_rng(seed)
    writer = _LlamaWriter(
        path,
        name=f"random-{weight_type}",
        vocabulary=random_vocabulary(n_vocab),
        n_layer=n_layer,
        n_embd=n_embd,
        n_head=n_head,
        n_head_kv=n_head_kv,
        n_ff=n_ff,
        n_ctx_train=n_ctx_train,
        weight_type=weight_type,
        chat_template=chat_template,
        n_expert=n_expert,
    )
    n_embd_kv = n_embd // n_head * n_head_kv

    def draw(rows: int, columns: int, gain: float = 1.0) -> npt.NDArray[np.float32]:
        values = random.standard_normal((rows, columns), dtype=np.float32)
        return values * np.float32(gain / columns**0.5)

    writer.matrix("token_embd.weight", draw(n_vocab, n_embd, n_embd**0.5))
    writer.vector("output_norm.weight", np.ones(n_embd, np.float32))
    writer.matrix("output.weight", draw(n_vocab, n_embd, 2.5))
    for layer in range(n_layer):
        writer.vector(f"blk.{layer}.attn_norm.weight", np.ones(n_embd, np.float32))
        writer.matrix(f"blk.{layer}.attn_q.weight", draw(n_embd, n_embd, 1.5))
        writer.matrix(f"blk.{layer}.attn_k.weight", draw(n_embd_kv, n_embd, 1.5))
        writer.matrix(f"blk.{layer}.attn_v.weight", draw(n_embd_kv, n_embd))
        writer.matrix(f"blk.{layer}.attn_output.weight", draw(n_embd, n_embd, 1.5))
        writer.vector(f"blk.{layer}.ffn_norm.weight", np.ones(n_embd, np.float32))
        if n_expert:
            writer.vector(f"blk.{layer}.ffn_gate_inp.weight", draw(n_expert, n_embd))
            for name, rows, columns in (("gate", n_ff, n_embd), ("up", n_ff, n_embd), ("down", n_embd, n_ff)):
                experts = np.stack([draw(rows, columns, 1.5) for _ in range(n_expert)])
                writer.matrix(f"blk.{layer}.ffn_{name}_exps.weight", experts)
            continue
        writer.matrix(f"blk.{layer}.ffn_gate.weight", draw(n_ff, n_embd))
        writer.matrix(f"blk.{layer}.ffn_up.weight", draw(n_ff, n_embd))
        writer.matrix(f"blk.{layer}.ffn_down.weight", draw(n_embd, n_ff, 1.5))
    writer.close()
    return path


def quantize_to_q4_k_m(source: Path, path: Path) -> Path:
    """``source`` (F16) quantized by llama.cpp itself: matrices in Q4_K and Q6_K."""
    lib = library.load()
    parameters = lib.llama_model_quantize_default_params()
    parameters.ftype = lib.LLAMA_FTYPE_MOSTLY_Q4_K_M
    parameters.nthread = 1
    assert lib.llama_model_quantize(bytes(source), bytes(path), ctypes.byref(parameters)) == 0
    return path


def build_scripted_model(
    path: Path,
    script: bytes,
    *,
    then: Literal["stop", "repeat"] = "stop",
    n_ctx_train: int = 4096,
    chat_template: str | None = CHATML,
    logit_gap: float = 40.0,
) -> Path:
    """A model that answers any prompt with ``script``, one byte a token, then stops (EOS) or begins again.

    Attention and feed-forward are zero, so that the next token depends on the last one alone. Each byte of
    the script has a token of its own: llama.cpp reads the value of a byte token from the two hexadecimal
    digits at offset 3 of its text, so ``<0x41>#7`` is another token for the byte 0x41. Every other token
    leads to the script's first byte. The wanted token's logit stands about ``logit_gap`` above zero, the
    others are noise of about a sixteenth of it.
    """
    if not script:
        raise ValueError("the script is empty")
    texts, scores, types = base_vocabulary()
    first = len(texts)
    for index, byte in enumerate(script):
        texts.append(b"<0x%02X>#%d" % (byte, index))
        scores.append(0.0)
        types.append(int(gguf.TokenType.BYTE))
    n_vocab = len(texts)
    n_embd, n_head = 256, 4
    random = np.random.default_rng(len(script))
    embedding = random.choice(np.array([-1.0, 1.0], np.float32), size=(n_vocab, n_embd))
    embedding[:first] = embedding[0]  # every prompt token begins the script
    embedding = embedding.astype(np.float32)
    output = np.zeros((n_vocab, n_embd), np.float32)
    scale = np.float32(logit_gap / n_embd)
    output[first] += scale * embedding[0]
    for index in range(len(script) - 1):
        output[first + index + 1] += scale * embedding[first + index]
    output[EOS if then == "stop" else first] += scale * embedding[n_vocab - 1]

    writer = _LlamaWriter(
        path,
        name="scripted",
        vocabulary=(texts, scores, types),
        n_layer=1,
        n_embd=n_embd,
        n_head=n_head,
        n_head_kv=1,
        n_ff=32,
        n_ctx_train=n_ctx_train,
        weight_type="f32",
        chat_template=chat_template,
    )
    writer.matrix("token_embd.weight", embedding)
    writer.vector("output_norm.weight", np.ones(n_embd, np.float32))
    writer.matrix("output.weight", output)
    for tensor, shape in {
        "attn_q": (n_embd, n_embd),
        "attn_k": (n_embd // n_head, n_embd),
        "attn_v": (n_embd // n_head, n_embd),
        "attn_output": (n_embd, n_embd),
        "ffn_gate": (32, n_embd),
        "ffn_up": (32, n_embd),
        "ffn_down": (n_embd, 32),
    }.items():
        writer.matrix(f"blk.0.{tensor}.weight", np.zeros(shape, np.float32))
    writer.vector("blk.0.attn_norm.weight", np.ones(n_embd, np.float32))
    writer.vector("blk.0.ffn_norm.weight", np.ones(n_embd, np.float32))
    writer.close()
    return path


def script_bytes(tokens: Sequence[int], script: bytes) -> bytes:
    """The bytes of tokens emitted by a scripted model (its end token gives none)."""
    return bytes(script[token - FIRST_PIECE] for token in tokens if token >= FIRST_PIECE)
