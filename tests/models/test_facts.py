"""Facts that follow from a header."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest

from gguf_builders import CHATML, build_random_model
from paddock.models import ModelFacts, facts_of, read_header


def test_facts_of_the_random_model(tiny_model_path: Path) -> None:
    facts = facts_of(read_header(tiny_model_path))
    assert facts.name == "random-q8_0"
    assert facts.architecture == "llama"
    assert facts.weight_types == {"q8_0": 30, "f32": 9}
    assert facts.matrix_types == {"q8_0": 30}
    assert facts.dominant_type == "q8_0"
    assert facts.parameter_count == 3_410_176
    assert (facts.n_layer, facts.n_embd, facts.n_head, facts.n_head_kv) == (4, 256, 4, 2)
    assert (facts.n_ctx_train, facts.n_vocab) == (4096, 2048)
    assert facts.file_size == tiny_model_path.stat().st_size
    assert facts.chat_template == CHATML
    assert (facts.bos_token_id, facts.eos_token_id, facts.add_bos) == (1, 2, True)
    assert (facts.memory_class, facts.causal, facts.license) == ("attention", True, "mit")
    assert facts.tokenizer_model == "llama"


def facts_with(path: Path, architecture: str, **metadata: object) -> ModelFacts:
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in metadata.items():
        key = key.replace("__", ".")
        if isinstance(value, list):
            writer.add_array(f"{architecture}.{key}", value)
        elif isinstance(value, bool):
            writer.add_bool(f"{architecture}.{key}", value)
        elif isinstance(value, int):
            writer.add_uint32(f"{architecture}.{key}", value)
        else:
            writer.add_string(f"{architecture}.{key}", str(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return facts_of(read_header(path))


@pytest.mark.parametrize(
    ("architecture", "metadata", "memory_class"),
    [
        ("llama", {}, "attention"),
        ("gemma3", {"attention__sliding_window": 512}, "sliding_window"),
        ("mamba2", {}, "recurrent"),
        ("jamba", {"attention__sliding_window": 512}, "hybrid"),
    ],
)
def test_the_memory_class_follows_from_architecture_and_window(
    tmp_path: Path, architecture: str, metadata: dict[str, object], memory_class: str
) -> None:
    assert facts_with(tmp_path / "m.gguf", architecture, **metadata).memory_class == memory_class


def test_counts_given_for_each_layer_count_as_their_largest(tmp_path: Path) -> None:
    facts = facts_with(tmp_path / "m.gguf", "openelm", attention__head_count=[12, 16, 20])
    assert (facts.n_head, facts.n_head_kv) == (20, 20)


def test_values_of_the_wrong_type_count_as_absent(tmp_path: Path) -> None:
    facts = facts_with(tmp_path / "m.gguf", "llama", block_count="many", context_length=True, embedding_length=["x"])
    assert (facts.n_layer, facts.n_ctx_train, facts.n_embd) == (0, 0, 0)
    assert facts.name == "m"


def test_the_header_digest_sees_metadata_and_tensors_but_not_the_path(tmp_path: Path) -> None:
    shape = {"n_layer": 1, "n_embd": 32, "n_head": 1, "n_head_kv": 1, "n_ff": 32, "n_vocab": 300}
    one = facts_of(read_header(build_random_model(tmp_path / "one.gguf", **shape)))  # type: ignore[arg-type]
    same = facts_of(read_header(build_random_model(tmp_path / "same.gguf", **shape)))  # type: ignore[arg-type]
    shape["n_ff"] = 64
    other = facts_of(read_header(build_random_model(tmp_path / "other.gguf", **shape)))  # type: ignore[arg-type]
    assert one.header_digest == same.header_digest != other.header_digest


def test_heads_are_as_wide_as_the_file_says_and_share_the_embedding_where_it_does_not(tmp_path: Path) -> None:
    shape: dict[str, object] = {"embedding_length": 512, "attention__head_count": 8}
    plain = facts_with(tmp_path / "plain.gguf", "llama", **shape)
    assert (plain.n_embd_head_k, plain.n_embd_head_v) == (64, 64)
    lengths: dict[str, object] = {"attention__key_length": 128, "attention__value_length": 96}
    wide = facts_with(tmp_path / "wide.gguf", "llama", **shape, **lengths)
    assert (wide.n_embd_head_k, wide.n_embd_head_v) == (128, 96)
