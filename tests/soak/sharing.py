"""A process that serves from a cache folder which others use too: ``python sharing.py MODEL FOLDER SEED``.

It first computes every reply without a cache, then serves the same requests at random for ever, and prints "ok" for
each that is the same again, and "other" for one that is not.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parent.parent / "engine"))

from caching import WILD, cached, request, tokens_of

import paddock

PROMPTS = [tokens_of(number % 3, 100) + tokens_of(50 + number, 150) for number in range(6)]
SLOT_BYTES = 64 * 4 * 2 * 128 * 2


async def serve(path: Path, folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    async with cached(path, prefix_cache=False, n_ctx=512) as cache:
        expected = [await cache.complete(prompt, **WILD) for prompt in PROMPTS]
    config = paddock.RuntimeConfig(
        cache_dir=folder, ram_cache_bytes=8 * SLOT_BYTES, disk_cache_bytes=14 * (SLOT_BYTES + 1024)
    )
    options = {"n_ctx": 512, "n_seq_max": 12, "n_threads": 1, "probe_seconds": 0.0}
    async with paddock.open_runtime(config) as runtime:
        model = await runtime.load_model(path, name="tiny", **options)

        async def client() -> None:
            while True:
                number = rng.randrange(len(PROMPTS))
                same = await model.complete(**request(PROMPTS[number], **WILD)) == expected[number]
                print("ok" if same else "other", flush=True)

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(client)


if __name__ == "__main__":
    trio.run(serve, Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
