"""Warm starts: what restoring a long prefix costs, against computing it; and what it does to streams that run.

    python bench/warm_start.py [--model FILE] [--tokens 4096] [--rounds 5] [--threads 1] [--json]

Each round takes a new prompt of ``tokens`` tokens and computes it with a short rest ("cold"), then sends it with
another rest, so that it is restored from RAM ("ram"); a runtime opened after that finds it on disk, with the files in
the system's page cache ("disk") and without them ("disk, not in the page cache"). So the cases are interleaved; medians
are printed. "first token" is what a user waits; "restore" is that less the worker's time in decode calls: look-up,
reading, verifying, putting the cells in place, and all messages. Last, streams decode while prefixes are restored
beside them: the longest pause between two tokens, against the same without, and beside prompts that are computed.

Without --model a random model in the shape of one of 0.1 B parameters is made. The disk tier lies in --folder, by
default a temporary one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import trio

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import paddock
from gguf_builders import build_random_model

SHAPE: dict[str, Any] = {"n_layer": 12, "n_embd": 768, "n_head": 12, "n_head_kv": 4, "n_ff": 2048, "n_vocab": 32_000}
REST = 8
CASES = ("cold", "ram", "disk", "disk, not in the page cache")


async def first_token(model: paddock.Model, prompt: list[int], cached: int) -> dict[str, float]:
    """Seconds until the first token of a request, and what the worker spent on its restore."""
    before = await model.statistics()
    started = time.perf_counter()
    async with model.stream(prompt, max_tokens=1, temperature=0, ignore_eos=True) as request:
        async for _ in request:
            seconds = time.perf_counter() - started
            break
        completion = await request.result()
    after = await model.statistics()
    if completion.usage.cached_tokens != cached:
        raise SystemExit(f"{completion.usage.cached_tokens} tokens were restored instead of {cached}: {after}")
    return {
        "first token": seconds,
        "restore": seconds - (after.step_seconds - before.step_seconds),
        "in the worker": after.restore_seconds - before.restore_seconds,
        "on the decode thread": after.restore_decode_seconds - before.restore_decode_seconds,
    }


def forget_pages(folder: Path) -> None:
    """Takes the files of a folder out of the system's page cache."""
    os.sync()
    for path in folder.rglob("*.kv"):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


async def saved(runtime: paddock.Runtime, model: paddock.Model) -> None:
    """Until the prompt has been saved, and written to disk where there is one."""
    while True:
        statistics = await runtime.cache_statistics()
        assert statistics is not None
        if (await model.statistics()).saves > 0 and statistics.due_blocks == 0:
            return
        await trio.sleep(0.05)


async def one_round(path: Path, folder: Path, number: int, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    rng = random.Random(number)
    n_vocab = 1000

    def rest() -> list[int]:
        return [rng.randrange(300, 300 + n_vocab) for _ in range(REST)]

    prefix = [rng.randrange(300, 300 + n_vocab) for _ in range(options.tokens)]
    config = paddock.RuntimeConfig(cache_dir=folder, ram_cache_bytes=4 << 30, disk_cache_bytes=32 << 30)
    model_options: dict[str, Any] = {
        "n_ctx": options.tokens + 64,
        "n_seq_max": 4,
        "n_threads": options.threads,
        "probe_seconds": 0.0,
    }
    taken: dict[str, dict[str, float]] = {}
    async with paddock.open_runtime(config) as runtime:
        model = await runtime.load_model(path, name="bench", **model_options)
        await model.complete([300] * 40, max_tokens=2)
        taken["cold"] = await first_token(model, prefix + rest(), 0)
        await saved(runtime, model)
        taken["ram"] = await first_token(model, prefix + rest(), options.tokens)
    for case in CASES[2:]:
        if case != "disk":
            forget_pages(folder)
        async with paddock.open_runtime(config) as runtime:
            model = await runtime.load_model(path, name="bench", **model_options)
            await model.complete([300] * 40, max_tokens=2)
            taken[case] = await first_token(model, prefix + rest(), options.tokens)
    return taken


async def pauses(path: Path, options: argparse.Namespace) -> dict[str, float]:
    """The longest pause between two tokens of streams, alone and while a prefix is restored again and again."""
    rng = random.Random(0)
    prefix = [rng.randrange(300, 1300) for _ in range(options.tokens)]
    longest: dict[str, list[float]] = {"alone": [], "beside restores": [], "beside prompts of 512 tokens": []}
    config = paddock.RuntimeConfig(ram_cache_bytes=4 << 30)
    async with paddock.open_runtime(config) as runtime:
        model = await runtime.load_model(
            path, name="bench", n_ctx=options.tokens + 256, n_seq_max=6, n_threads=options.threads, probe_seconds=0.0
        )
        await model.complete(prefix, max_tokens=1)
        await saved(runtime, model)

        async def streams(disturb: str) -> float:
            worst = 0.0

            async def stream(seed: int) -> None:
                nonlocal worst
                async with model.stream([300 + seed, 301], max_tokens=120, seed=seed, ignore_eos=True) as request:
                    last = None
                    async for _ in request:
                        now = time.perf_counter()
                        worst = max(worst, now - last if last is not None else 0.0)
                        last = now

            async with trio.open_nursery() as nursery:
                for seed in range(4):
                    nursery.start_soon(stream, seed)
                await trio.sleep(0.1)
                for number in range(4 if disturb != "alone" else 0):
                    new = [rng.randrange(300, 1300) for _ in range(512)]
                    await model.complete(
                        [*prefix, 500 + number, 501] if disturb == "beside restores" else new, max_tokens=1
                    )
            return worst

        for _ in range(options.rounds):
            for disturb, taken in longest.items():
                taken.append(await streams(disturb))
    return {name: statistics.median(taken) for name, taken in longest.items()}


async def run(path: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    rounds = [await one_round(path, folder, number, options) for number in range(options.rounds)]
    medians = {
        case: {name: statistics.median(taken[case][name] for taken in rounds) for name in rounds[0][case]}
        for case in CASES
    }
    return {"cases": medians, "pauses": await pauses(path, options)}


def main() -> None:
    parser = argparse.ArgumentParser(description="warm starts against cold ones")
    parser.add_argument("--model", type=Path, help="a GGUF file; a random one of 0.1 B parameters without it")
    parser.add_argument("--folder", type=Path, help="where the disk tier lies")
    parser.add_argument("--tokens", type=int, default=4096, help="of the prefix")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        path = options.model
        if path is None:
            path = build_random_model(Path(made) / "model.gguf", n_ctx_train=2 * options.tokens, **SHAPE)
        folder = options.folder if options.folder is not None else Path(made) / "cache"
        measured = trio.run(run, path, folder, options)
    cold = measured["cases"]["cold"]["first token"]
    if options.json:
        print(json.dumps(measured))
        return
    names = list(measured["cases"]["cold"])
    print(f"{options.tokens} tokens; milliseconds, and the part of the cold first token")
    print(f"{'':<28}" + "".join(f"{name:>24}" for name in names))
    for case, times in measured["cases"].items():
        print(f"{case:<28}" + "".join(f"{times[name] * 1e3:>14.1f} {times[name] / cold:>8.2%}" for name in names))
    print("longest pause of a stream among 4, milliseconds")
    for name, seconds in measured["pauses"].items():
        print(f"{name:<28}{seconds * 1e3:>14.1f}")


if __name__ == "__main__":
    main()
