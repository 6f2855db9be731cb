"""Checks the numbers that llama.cpp asserts about a model's shape while it loads (``llama_model_base::load_hparams``).

A number that is absent or of another type is left to llama.cpp, which refuses it properly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from paddock.models.gguf_values import GgufArray, GgufValue

__all__ = ["find_fault", "largest"]

MAX_LAYERS = 512
MAX_EXPERTS = 1024
_ROPE_SCALING = ("none", "linear", "yarn", "longrope")


def largest(metadata: Mapping[str, GgufValue], key: str) -> int:
    """A count, or the largest where there is one for each layer; 0 where it is absent or no count."""
    return max(_numbers(metadata, key), default=0)


def _numbers(metadata: Mapping[str, GgufValue], key: str) -> list[int]:
    value = metadata.get(key)
    if isinstance(value, GgufArray):
        numbers = value.numbers
        if numbers is None or not np.issubdtype(numbers.dtype, np.integer):
            return []
        return [max(int(number), 0) for number in numbers.tolist()]
    if isinstance(value, bool) or not isinstance(value, int):
        return []
    return [max(value, 0)]


def find_fault(metadata: Mapping[str, GgufValue], architecture: str) -> str | None:
    """What is wrong with the shape that the header states, or None."""
    layers = metadata.get(f"{architecture}.block_count")
    if isinstance(layers, int) and not 0 < layers <= MAX_LAYERS:
        return f"it claims {layers} layers (1 to {MAX_LAYERS} are possible)"
    scaling = metadata.get(f"{architecture}.rope.scaling.type")
    if isinstance(scaling, str) and scaling not in _ROPE_SCALING:
        return f"its rope scaling {scaling[:40]!r} is not one of {', '.join(_ROPE_SCALING)}"

    def count(key: str) -> int:
        return largest(metadata, f"{architecture}.{key}")

    if isinstance(layers, int) and count("nextn_predict_layers") > layers:
        return "it claims more layers for prediction than layers"
    return _expert_fault(count) or _head_fault(metadata, architecture)


def _expert_fault(count: Callable[[str], int]) -> str | None:
    experts, used = count("expert_count"), count("expert_used_count")
    groups, groups_used = count("expert_group_count"), count("expert_group_used_count")
    if experts > MAX_EXPERTS:
        return f"it claims {experts} experts (at most {MAX_EXPERTS} are possible)"
    if used > experts or (experts and not used):
        return f"it claims to use {used} of {experts} experts"
    if (experts and groups >= experts) or (not experts and groups):
        return f"it claims {groups} groups of {experts} experts"
    if groups > 1 and (experts % groups or not 0 < groups_used < groups):
        return f"it claims to use {groups_used} of {groups} groups of {experts} experts"
    return None


def _head_fault(metadata: Mapping[str, GgufValue], architecture: str) -> str | None:
    """Attention shares each K/V head among a whole number of heads."""
    heads = _numbers(metadata, f"{architecture}.attention.head_count")
    shared = _numbers(metadata, f"{architecture}.attention.head_count_kv")
    if not heads or not shared:
        return None
    width = max(len(heads), len(shared))
    pairs = zip(_spread(heads, width), _spread(shared, width), strict=False)
    for n_head, n_head_kv in pairs:
        if n_head and n_head_kv and n_head % n_head_kv:
            return f"its {n_head} heads cannot share {n_head_kv} K/V heads"
    return None


def _spread(numbers: list[int], width: int) -> list[int]:
    return numbers * width if len(numbers) == 1 else numbers
