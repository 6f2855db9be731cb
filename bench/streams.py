"""Streams at once through the whole of Paddock: tokens a second, and where a step's time goes.

    python bench/streams.py [--model FILE] [--streams 1 4 8 16] [--tokens 200] [--rounds 3] [--json]

The numbers of streams take turns, and medians over the rounds are printed. Without --model a tiny random one is made.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import attrs
import trio

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import paddock
from gguf_builders import build_random_model


@attrs.frozen
class Sample:
    """One round of one number of streams; times in microseconds a decode step."""

    tokens_per_second: float
    step: float
    worker: float
    parent_cpu: float


async def measure(model: paddock.Model, streams: int, tokens: int) -> Sample:
    """Runs ``streams`` streams of ``tokens`` tokens to their ends."""

    async def stream(seed: int) -> None:
        async with model.stream([300 + seed, 301], max_tokens=tokens, seed=seed, ignore_eos=True) as request:
            async for _ in request:
                pass

    before = await model.statistics()
    wall, cpu = time.perf_counter(), time.process_time()
    async with trio.open_nursery() as nursery:
        for seed in range(streams):
            nursery.start_soon(stream, seed)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    after = await model.statistics()
    steps = after.decode_steps - before.decode_steps
    worker = after.step_seconds - before.step_seconds
    return Sample(streams * tokens / wall, wall / steps * 1e6, worker / steps * 1e6, cpu / steps * 1e6)


async def run(path: Path, counts: list[int], tokens: int, rounds: int) -> dict[int, Sample]:
    """The median of each figure over the rounds, by number of streams."""
    samples: dict[int, list[Sample]] = {count: [] for count in counts}
    async with paddock.open_runtime() as runtime:
        model = await runtime.load_model(path, n_ctx=tokens + 16, n_seq_max=max(counts))
        await measure(model, max(counts), 16)
        for _ in range(rounds):
            for count in counts:
                samples[count].append(await measure(model, count, tokens))
    fields = [field.name for field in attrs.fields(Sample)]
    return {
        count: Sample(*(statistics.median(getattr(sample, name) for sample in taken) for name in fields))
        for count, taken in samples.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="streams at once: tokens a second, and where a step's time goes")
    parser.add_argument("--model", type=Path, help="a GGUF file; a tiny random model without it")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--tokens", type=int, default=200, help="of each stream")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.model or build_random_model(Path(folder) / "tiny.gguf")
        figures = trio.run(run, path, options.streams, options.tokens, options.rounds)
    if options.json:
        print(json.dumps({count: attrs.asdict(sample) for count, sample in figures.items()}))
        return
    print(f"{'streams':>8} {'tokens/s':>10} {'step, us':>10} {'worker, us':>11} {'parent CPU, us':>15}")
    for count, sample in figures.items():
        print(
            f"{count:>8} {sample.tokens_per_second:>10.0f} {sample.step:>10.0f} {sample.worker:>11.0f}"
            f" {sample.parent_cpu:>15.0f}"
        )


if __name__ == "__main__":
    main()
