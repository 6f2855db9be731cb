"""How a context is set up and scheduled so that a sequence's logits do not depend on what else runs.

The canonical schedule: prompt tokens in chunks of any size that is never below a minimum, each chunk in a decode
call of its own; generated tokens one row per sequence, never in a call with prompt rows; no more decode rows in a
call than the kernels' switch allows. Which minimum and which cap depends on the weight types, because llama.cpp
picks its CPU kernels by them (measured for the pinned version, see ``docs/architecture.md``). Matrices of other types,
and any on a GPU, get the same schedule under the name "unproven". For F16, BF16 and F32 it is known not to suffice: one
row has another kernel than several.
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

_MEASURED = frozenset({"q8_0", "q4_0", "q4_K", "q6_K"})
"""The types for which the schedule was seen to give the same bytes whatever ran beside."""

FAST = Recipe(
    name="off",
    separate_prefill=False,
    minimum_chunk=1,
    decode_row_cap=None,
    flash_attention=True,
    use_extra_bufts=True,
)


def recipe_for(exactness: str, matrix_types: Collection[str], *, on_gpu: bool = False) -> Recipe:
    """The recipe for these weights, which must not be named "canonical" where that is not known to be exact.

    ``exactness`` is ``"preferred"`` or ``"off"``; ``matrix_types`` are the ggml names of the types of all tensors of
    two dimensions and more (a vector takes part in no matrix product).
    """
    if exactness == "off":
        return FAST
    tiled = any("_K" in name or name.startswith("iq") for name in matrix_types)
    recipe = _CANONICAL_TILED if tiled else CANONICAL
    proven = not on_gpu and _MEASURED.issuperset(matrix_types)
    return recipe if proven else attrs.evolve(recipe, name="unproven")
