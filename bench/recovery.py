"""What a worker's death costs: the time from ``kill -9`` under running streams to their first new token.

    python bench/recovery.py [--model FILE] [--streams 16] [--tokens 512] [--rounds 5] [--threads 1] [--json]

Each round kills the worker twice: once with nothing running, until the model serves again ("restart": start of a
worker and load), and once in the middle of ``streams`` streams ("recovery": to the first new token of any of them;
"all": until each of them has a new one). "restore" is what the worker says it spent on restores. The bound is twice
restart and restore. Medians are printed, and whether all replies were those of an unbroken run.

Without --model it is the house model.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import time
from typing import Any

import trio

import paddock


async def killed(model: paddock.Model) -> None:
    before = await model.statistics()
    assert before.worker_pid is not None
    os.kill(before.worker_pid, signal.SIGKILL)
    while (await model.statistics()).worker_deaths == before.worker_deaths:  # noqa: ASYNC110
        await trio.sleep(0.001)


async def idle_round(model: paddock.Model) -> float:
    started = time.perf_counter()
    await killed(model)
    await model.wait_serving()
    return time.perf_counter() - started


async def streams_round(
    model: paddock.Model, requests: list[dict[str, Any]], at: int
) -> tuple[dict[str, float], list[paddock.Completion]]:
    """Kills the worker when every stream has ``at`` tokens."""
    before = await model.statistics()
    completions: list[Any] = [None] * len(requests)
    opened: dict[int, paddock.Request] = {}
    measured: dict[str, float] = {}

    async def run(number: int) -> None:
        async with model.stream(**requests[number]) as request:
            opened[number] = request
            completions[number] = await request.result()

    async with trio.open_nursery() as nursery:
        for number in range(len(requests)):
            nursery.start_soon(run, number)
        while len(opened) < len(requests) or any(one.progress.generated < at for one in opened.values()):  # noqa: ASYNC110
            await trio.sleep(0.001)
        started = time.perf_counter()
        await killed(model)
        reached = {number: request.progress.generated for number, request in opened.items()}
        while any(opened[number].progress.generated <= reached[number] for number in reached):  # noqa: ASYNC110
            await trio.sleep(0.001)
        measured["all"] = time.perf_counter() - started
    after = await model.statistics()
    measured["recovery"] = after.recovery_seconds - before.recovery_seconds
    measured["restore"] = after.restore_seconds - before.restore_seconds
    return measured, completions


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    rng = random.Random(1)
    length = max(options.tokens, 100)
    async with paddock.open_runtime() as runtime:
        model = await runtime.load_model(
            options.model,
            n_seq_max=options.streams,
            n_ctx=length + 320,
            n_threads=options.threads,
            max_restarts=1000,
            restart_period=0.1,  # each death counts as the only one: no delay before the restart
        )
        requests = [
            {
                "prompt": [rng.randrange(10, 500) for _ in range(options.tokens)],
                "max_tokens": 300,
                "seed": seed,
                "ignore_eos": True,
            }
            for seed in range(options.streams)
        ]
        unbroken: list[Any] = [None] * len(requests)

        async def run(number: int) -> None:
            unbroken[number] = await model.complete(**requests[number])

        async with trio.open_nursery() as nursery:
            for number in range(len(requests)):
                nursery.start_soon(run, number)
        rows: list[dict[str, float]] = []
        identical = True
        for _ in range(options.rounds):
            restart = await idle_round(model)
            measured, completions = await streams_round(model, requests, rng.randrange(100, 200))
            rows.append(measured | {"restart": restart})
            identical = identical and completions == unbroken
        certified = model.exactness
    medians = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    bound = 2 * (medians["restart"] + medians["restore"])
    return {
        "streams": options.streams,
        "prompt_tokens": options.tokens,
        "exactness": certified,
        "identical": identical,
        **{f"{name}_seconds": round(value, 4) for name, value in medians.items()},
        "recovery_of_bound": round(medians["recovery"] / bound, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cria")
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = trio.run(measure, options)
    if options.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:>20}  {value}")


if __name__ == "__main__":
    main()
