"""How a context is set up and scheduled so that a sequence's logits do not depend on what else runs.

The canonical schedule: prompt tokens in chunks of any size that is never below a minimum, each chunk in a decode
call of its own; generated tokens one row per sequence, never in a call with prompt rows; no more decode rows in a
call than the kernels' switch allows. Which minimum and which cap depends on the weight types, because llama.cpp
picks its CPU kernels by them (measured for the pinned version, see ``docs/architecture.md``). F16, BF16 and F32
matrices get the same schedule, which does not make them exact: one row has another kernel than several.
"""

from __future__ import annotations

from collections.abc import Collection

import attrs

__all__ = ["CANONICAL", "FAST", "Recipe", "recipe_for"]


@attrs.frozen(kw_only=True)
class Recipe:
    """Scheduling rules and context settings that belong together."""

    name: str
    separate_prefill: bool
    """Prompt chunks go in a decode call of their own."""
    minimum_chunk: int
    """Fewest prompt rows in a call, but for a prompt that is shorter itself."""
    decode_row_cap: int | None
    """Most generated rows in a call; None for no cap."""
    flash_attention: bool
    use_extra_bufts: bool
    """Whether weights may be repacked for the CPU at load."""


CANONICAL = Recipe(
    name="canonical",
    separate_prefill=True,
    minimum_chunk=2,
    decode_row_cap=None,
    flash_attention=False,
    use_extra_bufts=True,
)
"""For Q8_0 and Q4_0 weights: no cap, and repacking changes nothing."""

_CANONICAL_TILED = attrs.evolve(CANONICAL, minimum_chunk=8, decode_row_cap=7, use_extra_bufts=False)
"""K- and I-quants: their tiled matmul begins at 8 rows, and repacked Q4_K depends on a row's place."""

FAST = Recipe(
    name="off",
    separate_prefill=False,
    minimum_chunk=1,
    decode_row_cap=None,
    flash_attention=True,
    use_extra_bufts=True,
)


def recipe_for(exactness: str, weight_types: Collection[str]) -> Recipe:
    """The recipe for these weights: ``exactness`` is ``"preferred"`` or ``"off"``, ``weight_types`` ggml type names."""
    if exactness == "off":
        return FAST
    tiled = any("_K" in name or name.upper().startswith("IQ") for name in weight_types)
    return _CANONICAL_TILED if tiled else CANONICAL
