"""What can be known of a model from its header alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

import attrs

from paddock.models.architectures import HYBRID, RECURRENT
from paddock.models.gguf_header import GgufArray, GgufHeader, GgufValue
from paddock.models.hyperparameters import largest

__all__ = ["ModelFacts", "facts_of"]


@attrs.frozen(kw_only=True)
class ModelFacts:
    """Facts of one model file. Counts are those of the header; 0 where it does not say.

    ``weight_types`` counts tensors by ggml type name, ``matrix_types`` those of two dimensions and more;
    ``dominant_type`` is the type of the most weights among the matrices. ``n_head`` and ``n_head_kv`` are
    the largest of any layer, ``n_embd_head_k`` and ``n_embd_head_v`` the values in one key and one value of a head.
    ``n_expert`` is 0 for a model that is no mixture of experts.
    ``memory_class`` is "attention", "sliding_window", "recurrent" or "hybrid".
    ``header_digest`` is a BLAKE2b-128 over metadata and tensor table, the part of a model's fingerprint
    that costs nothing (it does not cover the weights' bytes).
    """

    path: Path
    name: str
    architecture: str
    weight_types: Mapping[str, int]
    matrix_types: Mapping[str, int]
    dominant_type: str
    parameter_count: int
    file_size: int
    n_layer: int
    n_embd: int
    n_head: int
    n_head_kv: int
    n_embd_head_k: int
    n_embd_head_v: int
    n_ctx_train: int
    n_expert: int
    n_vocab: int
    tokenizer_model: str
    chat_template: str | None
    memory_class: str
    bos_token_id: int | None
    eos_token_id: int | None
    add_bos: bool | None
    license: str | None
    causal: bool
    split_count: int
    header_digest: str


def facts_of(header: GgufHeader) -> ModelFacts:
    """The facts of a model, from its checked header. Unexpected types of single values are taken as
    absent.
    """
    metadata = header.metadata
    architecture = str(metadata["general.architecture"])
    tokens = metadata.get("tokenizer.ggml.tokens")
    weights: Counter[str] = Counter()
    for tensor in header.tensors:
        if len(tensor.dims) > 1:
            weights[tensor.ggml_type] += tensor.n_elements
    n_embd = largest(metadata, f"{architecture}.embedding_length")
    n_head = largest(metadata, f"{architecture}.attention.head_count")
    head = n_embd // n_head if n_head else 0
    return ModelFacts(
        path=header.path,
        name=_text(metadata, "general.name") or header.path.stem,
        architecture=architecture,
        weight_types=dict(Counter(tensor.ggml_type for tensor in header.tensors)),
        matrix_types=dict(Counter(t.ggml_type for t in header.tensors if len(t.dims) > 1)),
        dominant_type=weights.most_common(1)[0][0] if weights else "",
        parameter_count=sum(tensor.n_elements for tensor in header.tensors),
        file_size=header.file_size,
        n_layer=largest(metadata, f"{architecture}.block_count"),
        n_embd=n_embd,
        n_head=n_head,
        n_head_kv=largest(metadata, f"{architecture}.attention.head_count_kv") or n_head,
        n_embd_head_k=largest(metadata, f"{architecture}.attention.key_length") or head,
        n_embd_head_v=largest(metadata, f"{architecture}.attention.value_length") or head,
        n_ctx_train=largest(metadata, f"{architecture}.context_length"),
        n_expert=largest(metadata, f"{architecture}.expert_count"),
        n_vocab=len(tokens) if isinstance(tokens, GgufArray) else 0,
        tokenizer_model=_text(metadata, "tokenizer.ggml.model") or "",
        chat_template=_text(metadata, "tokenizer.chat_template"),
        memory_class=_memory_class(metadata, architecture),
        bos_token_id=_token(metadata, "tokenizer.ggml.bos_token_id"),
        eos_token_id=_token(metadata, "tokenizer.ggml.eos_token_id"),
        add_bos=_flag(metadata, "tokenizer.ggml.add_bos_token"),
        license=_text(metadata, "general.license"),
        causal=_flag(metadata, f"{architecture}.attention.causal") is not False,
        split_count=largest(metadata, "split.count"),
        header_digest=_digest(header),
    )


def _text(metadata: Mapping[str, GgufValue], key: str) -> str | None:
    value = metadata.get(key)
    return value if isinstance(value, str) and value else None


def _flag(metadata: Mapping[str, GgufValue], key: str) -> bool | None:
    value = metadata.get(key)
    return value if isinstance(value, bool) else None


def _token(metadata: Mapping[str, GgufValue], key: str) -> int | None:
    value = metadata.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None


def _memory_class(metadata: Mapping[str, GgufValue], architecture: str) -> str:
    if architecture in HYBRID:
        return "hybrid"
    if architecture in RECURRENT:
        return "recurrent"
    if largest(metadata, f"{architecture}.attention.sliding_window") > 0:
        return "sliding_window"
    return "attention"


def _digest(header: GgufHeader) -> str:
    hasher = blake2b(digest_size=16)
    for key in sorted(header.metadata):
        value = header.metadata[key]
        hasher.update(key.encode() + b"\0")
        if isinstance(value, GgufArray):
            if value.strings is not None:
                for string in value.strings:
                    hasher.update(len(string).to_bytes(8, "little") + string)
            elif value.numbers is not None:
                hasher.update(value.numbers.dtype.str.encode() + value.numbers.tobytes())
        else:
            shown = "nan" if isinstance(value, float) and math.isnan(value) else repr(value)
            hasher.update(type(value).__name__.encode() + shown.encode())
        hasher.update(b"\0")
    for tensor in header.tensors:
        hasher.update(repr((tensor.name, tensor.dims, tensor.ggml_type, tensor.offset)).encode())
    return hasher.hexdigest()
