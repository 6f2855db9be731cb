"""Running a request's own Python ``logits_processor``.

The row of logits travels from the worker to this process and back, once per token: some ten microseconds and
``8 * n_vocab`` bytes a token on top of the processor itself, which runs in a thread of its own. Its request leaves
the batch meanwhile; everybody else goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import trio

import supervisors as sup
from paddock.engine.requests.messages import HookDone
from paddock.errors import LogitsProcessorError
from paddock.telemetry.discretion import discreet

__all__ = ["LogitsProcessor", "apply_processor", "run_processor"]

LogitsProcessor = Callable[[Sequence[int], npt.NDArray[np.float32]], "npt.ArrayLike | None"]
"""``processor(token_ids, logits)``: prompt and generated token ids so far, and a float32 array of shape (n_vocab,)
that may be changed in place. Returns None (then the array as changed counts) or another row of the same shape."""


def apply_processor(processor: LogitsProcessor, tokens: Sequence[int], row: bytes) -> bytes:
    """The changed row as float32 bytes. Raises LogitsProcessorError, whatever the processor does."""
    logits = np.frombuffer(row, dtype="<f4").copy()
    try:
        returned: Any = processor(tuple(tokens), logits)
        changed = logits if returned is None else np.asarray(returned, dtype=np.float32)
    except BaseException as error:  # also SystemExit, which would end the program from its thread
        raise LogitsProcessorError(f"{type(error).__name__}: {error}") from error
    if changed.shape != logits.shape:
        raise LogitsProcessorError(f"expected shape {logits.shape}, got {changed.shape}")
    if np.isnan(changed).any() or not np.isfinite(changed).any() or np.isposinf(changed).any():
        raise LogitsProcessorError("the row has NaN or +inf, or leaves no token possible")
    return changed.astype("<f4").tobytes()


@discreet
async def run_processor(
    owner: sup.Pid[Any],
    processor: LogitsProcessor,
    tokens: Sequence[int],
    row: bytes,
    limiter: trio.CapacityLimiter,
) -> None:
    """Body of a one-shot process: runs the processor in a thread and casts HookDone to the request.

    When the request ends meanwhile, the thread is abandoned: Python cannot stop it, and its result goes nowhere.
    ``limiter`` belongs to the request, so a processor that never returns holds up nobody else.
    """
    try:
        changed = await trio.to_thread.run_sync(
            apply_processor, processor, tokens, row, abandon_on_cancel=True, limiter=limiter
        )
    except LogitsProcessorError as error:
        sup.cast(owner, HookDone(None, error))
    else:
        sup.cast(owner, HookDone(changed))
