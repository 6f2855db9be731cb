"""What a gap in the active sequence ids costs in a decode call, and whether a padding row is cheaper.

With one stream per sequence llama.cpp computes only consecutive ids in one pass over the weights. Measured here: one
row each for sequences with consecutive ids, for the same number with gaps ("unfilled"), and with the padding rows that
the planner chooses ("paddock"), whose cells are removed after the call. Times are CPU time, summed over the threads.

    python bench/gaps.py [--shape 0.1b|tiny] [--threads 1] [--rounds 40] [--depth 128]
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path

import structlog

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from gguf_builders import build_random_model
from paddock.native.batch import Chunk, SampleMode
from paddock.native.context import Context, ContextParameters
from paddock.native.model import NativeModel
from paddock.sampling import SamplingParameters

SHAPES = {
    "0.1b": {"n_layer": 12, "n_embd": 768, "n_head": 12, "n_head_kv": 4, "n_ff": 2048, "n_vocab": 32_000},
    "tiny": {},
}
CASES = {
    "1 row": [0],
    "2 rows, consecutive": [0, 1],
    "3 rows, consecutive": [0, 1, 2],
    "5 rows, consecutive": [0, 1, 2, 3, 4],
    "6 rows, consecutive": [0, 1, 2, 3, 4, 5],
    "5 rows, one gap of 1": [0, 1, 2, 4, 5],
    "5 rows, one gap of 2": [0, 1, 2, 5, 6],
    "5 rows, one gap of 3": [0, 1, 2, 6, 7],
    "8 rows, consecutive": [0, 1, 2, 3, 4, 5, 6, 7],
    "8 rows, two gaps of 1": [0, 1, 2, 4, 5, 6, 8, 9],
    "8 rows, seven gaps of 1": [0, 2, 4, 6, 8, 10, 12, 14],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="0.1b")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--depth", type=int, default=128)
    parser.add_argument("--weights", choices=["q8_0", "q4_0", "f16"], default="q8_0")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as folder:
        path = build_random_model(Path(folder) / "m.gguf", weight_type=arguments.weights, **SHAPES[arguments.shape])
        model = NativeModel.load(path, {"use_extra_bufts": True})
        contexts = {
            fill_gaps: Context.create(
                model,
                ContextParameters(
                    n_ctx=512,
                    n_seq_max=16,
                    n_threads=arguments.threads,
                    n_threads_batch=arguments.threads,
                    fill_gaps=fill_gaps,
                ),
            )
            for fill_gaps in (False, True)
        }
        times: dict[tuple[str, bool], list[float]] = {(name, gap): [] for name in CASES for gap in contexts}
        for _ in range(arguments.rounds):  # interleaved, so that a noisy machine disturbs all cases alike
            for (name, gap), samples in times.items():
                samples.append(measure(contexts[gap], CASES[name], arguments.depth))
        for name in CASES:
            left, filled = (statistics.median(times[name, gap]) * 1e3 for gap in (False, True))
            best_left, best_filled = (min(times[name, gap]) * 1e3 for gap in (False, True))
            print(
                json.dumps(
                    {
                        "case": name,
                        "unfilled_ms": round(left, 2),
                        "paddock_ms": round(filled, 2),
                        "best_unfilled_ms": round(best_left, 2),
                        "best_paddock_ms": round(best_filled, 2),
                    }
                )
            )
        for context in contexts.values():
            context.free()
        model.free()


def measure(context: Context, ids: list[int], depth: int) -> float:
    """CPU seconds of one decode call with one row for each of ``ids``, at ``depth`` tokens."""
    sampling = SamplingParameters(seed=0, temperature=0)
    for name in ids:
        if context.position(name) < depth or context.position(name) > depth + 200:
            context.open_sequence(name, 1, sampling)
            context.decode_and_sample_batch([Chunk(name, 1, 0, [5] * depth)])
    chunks = [Chunk(name, 1, context.position(name), [7], SampleMode.TOKEN) for name in ids]
    started = time.process_time()  # CPU time: what else runs on the machine does not count
    context.decode_and_sample_batch(chunks)
    return time.process_time() - started


if __name__ == "__main__":
    main()
