"""What the prefix cache costs a short request that gains nothing from it.

    python bench/cache_overhead.py [--requests 1000] [--folder DIR]

Two models of one file, one with ``prefix_cache=False``, serve requests in turns: prompts that were never seen, 20
tokens long (less than a block: nothing is looked up) and 100 tokens long (a block is looked up in vain, and saved),
with 4 tokens of reply, one after another. Prints medians in milliseconds. With --folder there is a disk tier.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import paddock
from gguf_builders import build_random_model

LENGTHS = (20, 100)


async def measure(path: Path, requests: int, folder: Path | None) -> dict[tuple[int, bool], list[float]]:
    rng = random.Random(1)
    times: dict[tuple[int, bool], list[float]] = {}
    async with paddock.open_runtime(paddock.RuntimeConfig(cache_dir=folder, ram_cache_bytes=256 << 20)) as runtime:
        models = {
            cached: await runtime.load_model(
                path, name=f"cache-{cached}", prefix_cache=cached, n_ctx=256, n_seq_max=4, n_threads=1
            )
            for cached in (True, False)
        }
        for number in range(requests + 50):
            for length in LENGTHS:
                order = [True, False]
                rng.shuffle(order)
                for cached in order:
                    prompt = [rng.randrange(300, 2048) for _ in range(length)]
                    started = time.perf_counter()
                    await models[cached].complete(prompt, max_tokens=4, temperature=0.0, ignore_eos=True)
                    if number >= 50:
                        times.setdefault((length, cached), []).append(1e3 * (time.perf_counter() - started))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description="overhead of the prefix cache for short requests")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = build_random_model(Path(folder) / "m.gguf")
        times = trio.run(measure, path, options.requests, options.folder)
    for length in LENGTHS:
        on, off = (statistics.median(times[length, cached]) for cached in (True, False))
        print(f"{length:4} tokens: {on:6.2f} ms with the cache, {off:6.2f} ms without, {on - off:+.2f} ms")


if __name__ == "__main__":
    main()
