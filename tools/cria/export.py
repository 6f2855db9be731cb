"""A checkpoint as GGUF: Q8_0 matrices, F32 norms, the tokenizer, the chat template and the special tokens."""

from __future__ import annotations

import argparse
from pathlib import Path

import gguf
import numpy as np
import sentencepiece
import torch

from tools.cria.documents import BEGIN, END_OF_TEXT, FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX, TURN_END
from tools.cria.model import Shape

CONTEXT_LENGTH = 2048
TEMPLATE = Path(__file__).with_name("template.jinja")


def add_tokenizer(writer: gguf.GGUFWriter, path: Path) -> None:
    """Write the SentencePiece model and the roles of its special tokens."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
    tokens, scores, types = [], [], []
    for index in range(pieces.get_piece_size()):
        tokens.append(pieces.id_to_piece(index).encode())
        scores.append(float(pieces.get_score(index)))
        if pieces.is_unknown(index):
            types.append(gguf.TokenType.UNKNOWN)
        elif pieces.is_control(index):
            types.append(gguf.TokenType.CONTROL)
        elif pieces.is_byte(index):
            types.append(gguf.TokenType.BYTE)
        elif tokens[-1] in (b"<tool_call>", b"</tool_call>"):
            types.append(gguf.TokenType.USER_DEFINED)
        else:
            types.append(gguf.TokenType.NORMAL)
    if len(set(tokens)) != len(tokens):
        raise ValueError("the tokenizer has two tokens of the same text; llama.cpp would abort on it")
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(pieces.piece_to_id(BEGIN))
    writer.add_eos_token_id(pieces.piece_to_id(TURN_END))
    writer.add_eot_token_id(pieces.piece_to_id(TURN_END))
    writer.add_unk_token_id(pieces.unk_id())
    writer.add_pad_token_id(pieces.piece_to_id(END_OF_TEXT))
    writer.add_uint32("tokenizer.ggml.fim_pre_token_id", pieces.piece_to_id(FIM_PREFIX))
    writer.add_uint32("tokenizer.ggml.fim_suf_token_id", pieces.piece_to_id(FIM_SUFFIX))
    writer.add_uint32("tokenizer.ggml.fim_mid_token_id", pieces.piece_to_id(FIM_MIDDLE))
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(TEMPLATE.read_text(encoding="utf-8").rstrip("\n"))


def export(checkpoint: Path, tokenizer: Path, output: Path) -> None:
    """Write the GGUF file for llama.cpp. The matrices are rounded to Q8_0, the norms stay in F32."""
    state = torch.load(checkpoint, weights_only=True)
    shape = Shape(**state["shape"])
    writer = gguf.GGUFWriter(str(output), "llama")
    writer.add_name("cria")
    writer.add_author("The Paddock authors")
    writer.add_license("MIT")
    writer.add_size_label(f"{sum(w.numel() for w in state['model'].values()) / 1e6:.1f}M")
    writer.add_description(
        "The house model of Paddock: a very small llama for demos and tests, trained on generated text"
    )
    writer.add_languages(["en"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    add_tokenizer(writer, tokenizer)
    q8_0 = gguf.GGMLQuantizationType.Q8_0
    for name, weight in state["model"].items():
        values = weight.float().numpy().astype(np.float32)
        if values.ndim == 2:
            writer.add_tensor(name, gguf.quants.quantize(values, q8_0), raw_dtype=q8_0)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    """Export a training directory."""
    parser = argparse.ArgumentParser(prog="python -m tools.cria.export", description=__doc__)
    parser.add_argument("directory", type=Path, help="the directory of the training run")
    parser.add_argument("output", type=Path, help="the GGUF file to write, e.g. src/paddock/models/house/cria.gguf")
    options = parser.parse_args()
    export(options.directory / "checkpoint.pt", options.directory / "tokenizer.model", options.output)
    print(f"{options.output}: {options.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
