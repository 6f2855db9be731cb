"""From a configuration and a file's header to everything a model's subtree needs. Pure."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

from paddock.config import ModelConfig
from paddock.engine.batching.policy import BatchLimits
from paddock.engine.batching.recipes import Recipe, recipe_for
from paddock.engine.worker.protocol import Load
from paddock.errors import InvalidConfiguration, ModelLoadFailed
from paddock.models.facts import ModelFacts
from paddock.native.exactness.certificate import ProbeOrder

__all__ = ["DEFAULT_CONTEXT", "ModelPlan", "plan_model"]

DEFAULT_CONTEXT = 4096
"""Most tokens per sequence where the configuration names none: the KV cache is reserved at load."""


@attrs.frozen(kw_only=True)
class ModelPlan:
    """How this model will be loaded and scheduled; decided before llama.cpp sees the file."""

    name: str
    config: ModelConfig
    facts: ModelFacts
    recipe: Recipe
    n_ctx: int
    load: Load
    limits: BatchLimits


SMALL_MODEL_BYTES = 32 * 1024 * 1024
"""Below it one thread is the default: a step takes so short that threads wait for each other longer than they
compute, and on a busy machine, where one of them is not running, a hundred times longer (measured)."""


def default_threads(file_size: int) -> int:
    """The CPUs this process may use, at most 16, since decoding is bound by memory well before that; 1 for a small
    model."""
    if file_size < SMALL_MODEL_BYTES:
        return 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(16, usable)


def plan_model(
    config: ModelConfig,
    facts: ModelFacts,
    *,
    fingerprint: str = "",
    certificates: Path | None = None,
    block_tokens: int = 0,
) -> ModelPlan:
    """``fingerprint`` is that of the file's content, ``certificates`` the folder where certificates are kept,
    ``block_tokens`` the length of a block of the prefix cache, 0 where there is none.

    Raises InvalidConfiguration for a context beyond the model's, ModelLoadFailed for a model that cannot be served in
    sequences yet."""
    name = config.served_name
    if facts.split_count > 1:
        raise ModelLoadFailed(name, f"it is split over {facts.split_count} files; merge them into one")
    if not facts.causal:
        raise ModelLoadFailed(name, "it is no causal language model, so it cannot complete text")
    if facts.memory_class != "attention":
        raise ModelLoadFailed(name, f"memory class {facts.memory_class!r} is not served by this version")
    trained = facts.n_ctx_train or DEFAULT_CONTEXT
    n_ctx = config.n_ctx if config.n_ctx is not None else min(trained, DEFAULT_CONTEXT)
    if n_ctx > trained:
        raise InvalidConfiguration("n_ctx", f"{n_ctx} exceeds the {trained} tokens the model was trained for")
    recipe = recipe_for(
        config.exactness,
        facts.matrix_types,
        recipe=config.exactness_recipe,
        mixture=facts.n_expert > 0,
        n_seq_max=config.n_seq_max,
    )
    threads = config.n_threads if config.n_threads is not None else default_threads(facts.file_size)
    load = Load(
        path=str(facts.path),
        model={"n_gpu_layers": config.n_gpu_layers, "use_extra_bufts": recipe.use_extra_bufts},
        context={
            "n_ctx": n_ctx,
            "n_seq_max": max(config.n_seq_max, 2) if recipe.pair_rows else config.n_seq_max,
            "n_batch": config.n_batch,
            "n_ubatch": config.n_batch,
            "n_threads": threads,
            "n_threads_batch": threads,
            "flash_attention": recipe.flash_attention,
            "type_v": recipe.type_v,
            "pair_rows": recipe.pair_rows,
        },
        probe=_probe_order(config, recipe, fingerprint, certificates),
        block_tokens=block_tokens if config.prefix_cache else 0,
    )
    limits = BatchLimits(n_batch=config.n_batch, prefill_chunk=config.prefill_chunk, recipe=recipe)
    return ModelPlan(name=name, config=config, facts=facts, recipe=recipe, n_ctx=n_ctx, load=load, limits=limits)


def _probe_order(config: ModelConfig, recipe: Recipe, fingerprint: str, certificates: Path | None) -> ProbeOrder | None:
    if config.exactness == "off":
        return None
    return ProbeOrder(
        recipe=recipe.name,
        rules={
            "separate_prefill": recipe.separate_prefill,
            "minimum_chunk": recipe.minimum_chunk,
            "decode_row_cap": recipe.decode_row_cap,
            "tokens_alone": recipe.tokens_alone,
        },
        seconds=config.probe_seconds,
        required=config.exactness == "required",
        model=fingerprint,
        folder=str(certificates) if certificates is not None and fingerprint else "",
    )
