"""Tiny random models whose state is laid out otherwise than llama's: M-RoPE, sliding window, recurrent."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from gguf_builders import random_vocabulary

N_VOCAB, N_EMBD, N_FF, N_LAYER, N_HEAD, N_HEAD_KV = 512, 128, 128, 2, 2, 1
HEAD = N_EMBD // N_HEAD
INNER, STATE, RANK = 128, 8, 8

_random = np.random.default_rng(0)


class _Writer(gguf.GGUFWriter):
    def __init__(self, path: Path, architecture: str) -> None:
        super().__init__(path, architecture)
        self.add_context_length(512)
        self.add_embedding_length(N_EMBD)
        self.add_block_count(N_LAYER)
        self.add_feed_forward_length(N_FF)
        self.add_head_count(N_HEAD)
        self.add_head_count_kv(N_HEAD_KV)
        self.add_layer_norm_rms_eps(1e-5)
        texts, scores, types = random_vocabulary(N_VOCAB)
        self.add_vocab_size(N_VOCAB)
        self.add_tokenizer_model("llama")
        self.add_token_list(texts)
        self.add_token_scores(scores)
        self.add_token_types(types)
        self.add_bos_token_id(1)
        self.add_eos_token_id(2)

    def matrix(self, name: str, rows: int, columns: int) -> None:
        values = _random.standard_normal((rows, columns), np.float32) / np.float32(columns**0.5)
        self.add_tensor(f"{name}.weight", values)

    def vector(self, name: str, length: int, value: float = 1.0) -> None:
        self.add_tensor(name, np.full(length, value, np.float32))

    def attention_layer(self, prefix: str) -> None:
        self.vector(f"{prefix}.attn_norm.weight", N_EMBD)
        self.matrix(f"{prefix}.attn_q", N_EMBD, N_EMBD)
        self.matrix(f"{prefix}.attn_k", HEAD * N_HEAD_KV, N_EMBD)
        self.matrix(f"{prefix}.attn_v", HEAD * N_HEAD_KV, N_EMBD)
        self.matrix(f"{prefix}.attn_output", N_EMBD, N_EMBD)
        self.vector(f"{prefix}.ffn_norm.weight", N_EMBD)
        self.matrix(f"{prefix}.ffn_gate", N_FF, N_EMBD)
        self.matrix(f"{prefix}.ffn_up", N_FF, N_EMBD)
        self.matrix(f"{prefix}.ffn_down", N_EMBD, N_FF)

    def finish(self) -> None:
        self.matrix("token_embd", N_VOCAB, N_EMBD)
        self.vector("output_norm.weight", N_EMBD)
        self.write_header_to_file()
        self.write_kv_data_to_file()
        self.write_tensors_to_file()
        self.close()


def build_qwen2vl(path: Path) -> Path:
    """Attention cells with an extension: a position of three coordinates."""
    writer = _Writer(path, "qwen2vl")
    writer.add_rope_dimension_sections([HEAD // 4, HEAD // 8, HEAD // 8, 0])
    for layer in range(N_LAYER):
        writer.attention_layer(f"blk.{layer}")
        writer.vector(f"blk.{layer}.attn_q.bias", N_EMBD, 0.0)
        writer.vector(f"blk.{layer}.attn_k.bias", HEAD * N_HEAD_KV, 0.0)
        writer.vector(f"blk.{layer}.attn_v.bias", HEAD * N_HEAD_KV, 0.0)
    writer.finish()
    return path


def build_gemma2(path: Path) -> Path:
    """Two caches, one of which has a sliding window."""
    writer = _Writer(path, "gemma2")
    writer.add_sliding_window(64)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_attn_logit_softcapping(50.0)
    writer.add_final_logit_softcapping(30.0)
    for layer in range(N_LAYER):
        writer.attention_layer(f"blk.{layer}")
        writer.vector(f"blk.{layer}.post_attention_norm.weight", N_EMBD)
        writer.vector(f"blk.{layer}.post_ffw_norm.weight", N_EMBD)
    writer.finish()
    return path


def build_mamba(path: Path) -> Path:
    """No cells: one state that every token changes."""
    writer = _Writer(path, "mamba")
    writer.add_ssm_conv_kernel(4)
    writer.add_ssm_inner_size(INNER * 2)
    writer.add_ssm_state_size(STATE)
    writer.add_ssm_time_step_rank(RANK)
    for layer in range(N_LAYER):
        prefix = f"blk.{layer}"
        writer.vector(f"{prefix}.attn_norm.weight", N_EMBD)
        writer.matrix(f"{prefix}.ssm_in", INNER * 4, N_EMBD)
        writer.matrix(f"{prefix}.ssm_conv1d", INNER * 2, 4)
        writer.vector(f"{prefix}.ssm_conv1d.bias", INNER * 2, 0.0)
        writer.matrix(f"{prefix}.ssm_x", RANK + 2 * STATE, INNER * 2)
        writer.matrix(f"{prefix}.ssm_dt", INNER * 2, RANK)
        writer.vector(f"{prefix}.ssm_dt.bias", INNER * 2, 0.0)
        writer.add_tensor(f"{prefix}.ssm_a", np.full((INNER * 2, STATE), -1.0, np.float32))
        writer.vector(f"{prefix}.ssm_d", INNER * 2)
        writer.matrix(f"{prefix}.ssm_out", N_EMBD, INNER * 2)
    writer.finish()
    return path
