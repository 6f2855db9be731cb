"""The shape of a context: what may be asked for, and what memory its cells take."""

from __future__ import annotations

import os
from typing import Any

import attrs

from paddock.errors import InvalidConfiguration, ModelLoadFailed
from paddock.models.ggml_types import GGML_TYPES
from paddock.native.model import NativeModel

__all__ = ["CELL_PADDING", "KV_TYPES", "MAX_CELLS", "ContextParameters", "check_memory", "kv_bytes"]

CELL_PADDING = 256  # llama.cpp rounds the cells of a sequence up to a multiple
KV_TYPES = {"f32": 0, "f16": 1, "bf16": 30, "q8_0": 8, "q4_0": 2, "q4_1": 3, "iq4_nl": 20, "q5_0": 6, "q5_1": 7}
_QUANTIZED = frozenset(KV_TYPES) - {"f32", "f16", "bf16"}
_KV_BLOCK = 32
MAX_CELLS = 2**31 - 1


def _whole(low: int, high: int) -> Any:
    def check(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise InvalidConfiguration(attribute.name, f"{value!r} is not an integer from {low} to {high}")

    return check


def _kv_type(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value not in KV_TYPES:
        raise InvalidConfiguration(attribute.name, f"{value!r} is not one of {', '.join(KV_TYPES)}")


def _flag(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, bool):
        raise InvalidConfiguration(attribute.name, f"{value!r} is not true or false")


@attrs.frozen(kw_only=True)
class ContextParameters:
    """The shape of a context. ``n_ctx`` is cells *per sequence*, rounded up to a multiple of 256.

    ``n_batch`` rows at most in one decode call, of which ``n_ubatch`` are computed at a time.
    ``fill_gaps``: whether gaps in the sequence ids of single-row chunks may be filled with padding rows; None is
    where more rows in a pass are known to leave the others' bytes alone (all matrices Q8_0 or Q4_0).
    ``pair_rows``: a single-row chunk is never computed alone, which needs two sequences (see ``row_order.py``); it
    says nothing of calls that mix chunks of several rows with others.
    """

    n_ctx: int = attrs.field(default=2048, validator=_whole(1, MAX_CELLS))
    n_seq_max: int = attrs.field(default=1, validator=_whole(1, 256))
    n_batch: int = attrs.field(default=512, validator=_whole(1, 2**20))
    n_ubatch: int = attrs.field(default=512, validator=_whole(1, 2**20))
    n_threads: int = attrs.field(factory=lambda: max(1, os.cpu_count() or 1), validator=_whole(1, 512))
    n_threads_batch: int = attrs.field(factory=lambda: max(1, os.cpu_count() or 1), validator=_whole(1, 512))
    flash_attention: bool = attrs.field(default=False, validator=_flag)
    type_k: str = attrs.field(default="f16", validator=_kv_type)
    type_v: str = attrs.field(default="f16", validator=_kv_type)
    kv_unified: bool = attrs.field(default=False, validator=_flag)
    offload_kqv: bool = attrs.field(default=True, validator=_flag)
    fill_gaps: bool | None = attrs.field(default=None, validator=attrs.validators.optional(_flag))
    pair_rows: bool = attrs.field(default=False, validator=_flag)

    def __attrs_post_init__(self) -> None:
        if self.type_v in _QUANTIZED and not self.flash_attention:
            raise InvalidConfiguration("type_v", f"{self.type_v!r} needs flash_attention=True")
        if self.pair_rows and (self.n_seq_max < 2 or self.kv_unified):
            raise InvalidConfiguration("pair_rows", "needs n_seq_max of 2 or more and kv_unified=False")


def kv_bytes(model: NativeModel, parameters: ContextParameters, cells: int) -> int:
    """What ``cells`` cells a sequence take in all, by the model's dimensions; 0 where it keeps other state than
    attention cells.
    """
    facts = model.facts
    if model.memory_class in ("recurrent", "hybrid") or not facts.n_head:
        return 0
    key = _row_bytes(parameters.type_k, facts.n_head_kv * facts.n_embd_head_k)
    value = _row_bytes(parameters.type_v, facts.n_head_kv * facts.n_embd_head_v)
    return (key + value) * facts.n_layer * cells * (1 if parameters.kv_unified else parameters.n_seq_max)


def _row_bytes(kind: str, width: int) -> int:
    layout = GGML_TYPES[KV_TYPES[kind]]
    return -(-width // layout.block_size) * layout.block_bytes


def check_memory(model: NativeModel, parameters: ContextParameters, cells: int) -> None:
    """llama.cpp clears the whole cache at once: what the machine cannot hold would end in the out-of-memory
    killer. InvalidConfiguration, ModelLoadFailed.
    """
    wanted = kv_bytes(model, parameters, cells)
    for field, head in (("type_k", model.facts.n_embd_head_k), ("type_v", model.facts.n_embd_head_v)):
        if getattr(parameters, field) in _QUANTIZED and head % _KV_BLOCK:
            raise InvalidConfiguration(field, f"the model's heads of {head} values are no blocks of {_KV_BLOCK}")
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if wanted > installed:
        raise ModelLoadFailed(
            model.facts.name,
            f"the KV cache would take {wanted / 2**30:.1f} GiB of {installed / 2**30:.1f} GiB; "
            "lower n_ctx or n_seq_max",
        )
