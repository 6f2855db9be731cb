"""A worker that dies, or hangs, whenever it computes certain requests: those with a seed of :data:`FAULTS`.

Started by ``faults.FaultyPort`` in the place of ``python -m paddock.engine.worker``.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from paddock.native.context import Context

FAULTS = {
    666_001: "assertion",
    666_002: "segfault",
    666_003: "kill",
    666_004: "hang",
    666_005: "assertion late",
    666_006: "slow",
}
SLOW_SECONDS = 2.5
LATE = 120
"""How many tokens a sequence has to hold for the late fault."""


def fail(context: Context, fault: str) -> None:
    if fault.startswith("assertion"):
        lib, memory = context._lib, context._memory
        # Part of one stream to another: llama.cpp cannot, and says so with a GGML_ASSERT.
        lib.llama_memory_seq_cp(memory, 0, 1, 0, 1)
    elif fault in ("hang", "slow"):
        time.sleep(3600 if fault == "hang" else SLOW_SECONDS)
    else:
        os.kill(os.getpid(), signal.SIGSEGV if fault == "segfault" else signal.SIGKILL)


def install() -> None:
    marked: dict[int, str] = {}
    open_sequence, decode = Context.open_sequence, Context.decode_and_sample_batch

    def opening(self: Context, sequence_id: int, generation: int, sampling: Any, *more: Any, **options: Any) -> None:
        open_sequence(self, sequence_id, generation, sampling, *more, **options)
        marked[sequence_id] = FAULTS.get(sampling.seed, "")

    def decoding(self: Context, chunks: Any) -> Any:
        for chunk in chunks:
            fault = marked.get(chunk.sequence_id)
            if fault and (not fault.endswith("late") or chunk.position + len(chunk.tokens) > LATE):
                fail(self, fault)
        return decode(self, chunks)

    Context.open_sequence = opening  # type: ignore[method-assign]
    Context.decode_and_sample_batch = decoding  # type: ignore[method-assign]


if __name__ == "__main__":
    from paddock.engine.worker.child import main

    install()
    main()
