"""How a context is set up and scheduled so that a sequence's logits do not depend on what else runs.

**Canonical**, a schedule: prompt tokens in chunks of any size that is never below a minimum, each chunk in a decode
call of its own; generated tokens one row per sequence, never in a call with prompt rows. Logits depend on the tokens
and on which of them were prompt. **Invariant**, kernels: attention and matrix products that compute a row in the same
way whatever stands beside it. Logits depend on the tokens alone; the schedule is as free as the weights allow.

llama.cpp picks its CPU kernels by the weights' types and by the number of rows, so the details differ (measured for
the pinned version with ``bench/exactness.py``; ``docs/exactness.md`` says what was tried):

* F16, BF16, F32 (the router of a mixture of experts) and IQ4_NL matrices have a kernel of their own for one row: rows
  are *paired*, a single one gets a padding row beside it. Where no more than two sequences can run, each is computed by
  itself instead, which is cheaper for one.
* K- and I-quants have tiles from 8 rows on: prompts in chunks of 8 and more, at most 7 generated rows. In a mixture of
  experts the rows of *one expert* count, which depends on the prompt: tiles are switched off there.

What a recipe promises for a type that was never measured is what the probe at load finds: see
:mod:`paddock.native.exactness`.
"""

from __future__ import annotations

from collections.abc import Collection

import attrs

__all__ = ["CANONICAL", "FAST", "INVARIANT", "Recipe", "recipe_for"]

TILES_OFF = ("GGML_CPU_TILED_MM", "0")


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
    type_v: str = "f16"
    """Type of the values in the KV cache; the keys are F16."""
    pair_rows: bool = False
    """A single row is computed beside a padding row; this takes a second sequence where there is one."""
    tokens_alone: bool = False
    """Logits depend on the tokens alone, not on which of them were prompt."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables that must stand in the environment before llama.cpp is loaded."""

    @property
    def separates_generated(self) -> bool:
        """Whether a generated token has other bits than the same token in a prompt, so that both must be told apart."""
        return self.separate_prefill and not self.tokens_alone


CANONICAL = Recipe(
    name="canonical",
    separate_prefill=True,
    minimum_chunk=2,
    decode_row_cap=None,
    flash_attention=False,
    use_extra_bufts=True,
)
"""For Q8_0 and Q4_0 weights: no cap, and repacking changes nothing."""

INVARIANT = Recipe(
    name="invariant",
    separate_prefill=False,
    minimum_chunk=1,
    decode_row_cap=None,
    flash_attention=True,
    use_extra_bufts=False,
    type_v="bf16",
    tokens_alone=True,
    environment=(TILES_OFF,),
)
"""K and V of different types keep flash attention from splitting and tiling by what stands beside a row."""

FAST = Recipe(
    name="off",
    separate_prefill=False,
    minimum_chunk=1,
    decode_row_cap=None,
    flash_attention=True,
    use_extra_bufts=True,
)

_ONE_ROW_APART = frozenset({"f16", "bf16", "f32", "iq4_nl"})
"""Types with a kernel for one row that gives other bytes than the one for several."""
_FEW_SEQUENCES = 2
"""So many rows one after another are cheaper than a pass of two, whose kernel is made for many."""
_REPACKED_ALIKE = frozenset({"q8_0", "q4_0", "q6_K"})
"""Types that are not repacked (Q8_0 and Q6_K on x86), or whose repacked kernels give every row the same bytes."""


def _tiled(name: str) -> bool:
    return name.endswith("_K") or (name.startswith("iq") and name != "iq4_nl")


def recipe_for(
    exactness: str,
    matrix_types: Collection[str],
    *,
    recipe: str = "canonical",
    mixture: bool = False,
    n_seq_max: int = 8,
) -> Recipe:
    """The cheapest variant of ``recipe`` ("canonical", "invariant") that is exact for these weights.

    ``exactness`` is ``"required"``, ``"preferred"`` or ``"off"``; ``matrix_types`` are the ggml names of the types of
    all tensors of two dimensions and more (a vector takes part in no matrix product); ``mixture`` says that the model
    is one of experts; ``n_seq_max`` is the number of sequences that may run at once.
    """
    if exactness == "off":
        return FAST
    tiled = any(map(_tiled, matrix_types))
    pairs = not _ONE_ROW_APART.isdisjoint(matrix_types)
    if recipe == "invariant":
        # A call that mixes prompts and single rows is cut into passes, one of which may be a single row.
        chosen = attrs.evolve(INVARIANT, pair_rows=pairs, separate_prefill=pairs)
        return chosen if tiled else attrs.evolve(chosen, environment=())
    repack = _REPACKED_ALIKE.issuperset(matrix_types)
    chosen = attrs.evolve(CANONICAL, use_extra_bufts=repack)
    if tiled and mixture:
        chosen = attrs.evolve(chosen, environment=(TILES_OFF,))
    elif tiled:
        chosen = attrs.evolve(chosen, minimum_chunk=8, decode_row_cap=7)
    if pairs and n_seq_max <= _FEW_SEQUENCES:
        chosen = attrs.evolve(chosen, decode_row_cap=1)
    elif pairs:
        # A padding row at each end may join two runs of rows.
        cap = None if chosen.decode_row_cap is None else chosen.decode_row_cap - 2
        chosen = attrs.evolve(chosen, pair_rows=True, decode_row_cap=cap)
    return chosen
