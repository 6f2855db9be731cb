"""Where a cached prefix may end, so that what is computed after it gives the same bits as computing everything."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["resume_point"]


def resume_point(generated: npt.NDArray[np.bool_], cached: int, block_tokens: int, minimum_chunk: int) -> int:
    """The most tokens of a request that may come from the cache: a multiple of ``block_tokens``, 0 for none.

    ``generated`` says for each token of the request whether it was generated (shape: tokens); ``cached`` is how many
    tokens from the first on are in the cache. With p as the result:

    * At least one token is left to compute, so that there are logits to sample from.
    * p lies inside a prompt segment (a maximal run of prompt tokens) only if the segment's rest is no fewer than
      ``minimum_chunk`` rows. A segment shorter than that is computed whole or not at all.

    With ``minimum_chunk=1`` only the first rule is left.
    """
    total = len(generated)
    point = min(cached, total - 1) // block_tokens * block_tokens
    while point > 0:
        if generated[point] or generated[point - 1]:
            return point
        rest = generated[point : point + minimum_chunk]
        # argmax stops at the first True, and is 0 when there is none.
        ahead = int(rest.argmax()) if rest.any() else len(rest)
        if ahead >= minimum_chunk:
            return point
        point -= block_tokens
    return 0
