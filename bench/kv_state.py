"""What saving and restoring a prefix costs, against computing it: blocks in the RAM tier, the worker's own code.

    .venv/bin/python bench/kv_state.py [--model FILE] [--tokens 4096] [--rounds 5] [--json]

Each round prefills the prompt in chunks of 512 (the canonical settings), saves it into the arena, and restores it
under another id (verify, put together, set), so that all three meet the same noise. Medians are printed, and the
restore's share of the prefill. Without a model, one with random weights in the shape of a 0.1 B model is made.
"""

from __future__ import annotations

import argparse
import json
import queue
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from gguf_builders import build_random_model
from paddock.cache.arena import Arena
from paddock.engine.worker.executor import Executor
from paddock.engine.worker.protocol import (
    BlockRef,
    BlocksRestored,
    BlocksSaved,
    FromWorker,
    Load,
    Loaded,
    OpenSequence,
    RestoreBlocks,
    SaveBlocks,
    SequenceRef,
    Step,
    Stepped,
    Stop,
)
from paddock.native.batch import Chunk
from paddock.sampling import SamplingParameters

CHUNK = 512
SHAPE = {"n_layer": 12, "n_embd": 768, "n_head": 12, "n_head_kv": 4, "n_ff": 2048, "n_vocab": 32_000}
GREEDY = SamplingParameters(temperature=0.0, seed=1).to_mapping()


class Worker:
    """An executor whose answers are awaited one by one."""

    def __init__(self, model: Path, tokens: int, block_tokens: int, n_threads: int, arena: Arena) -> None:
        self._answers: queue.SimpleQueue[FromWorker] = queue.SimpleQueue()
        self._executor = Executor(self._answers.put, lambda: None, arena.fd)
        self._executor.start()
        context: dict[str, object] = {
            "n_ctx": tokens,
            "n_seq_max": 2,
            "n_threads": n_threads,
            "n_threads_batch": n_threads,
        }
        load = Load(str(model), {"use_extra_bufts": True}, context, block_tokens=block_tokens)
        self.loaded: Loaded = self._ask(load, Loaded)

    def _ask(self, message: object, kind: type) -> object:
        self._executor.handle(message)
        while not isinstance(answer := self._answers.get(), kind):
            pass
        assert getattr(answer, "fault", None) is None, answer
        return answer

    def prefill(self, tokens: list[int]) -> float:
        started = time.perf_counter()
        self._ask(Step(1, [SequenceRef(0, 1)], [OpenSequence(0, 1, GREEDY)], []), Stepped)
        for at in range(0, len(tokens), CHUNK):
            self._ask(Step(1, [], [], [Chunk(0, 1, at, tokens[at : at + CHUNK])]), Stepped)
        return time.perf_counter() - started

    def save(self, slots: list[int]) -> BlocksSaved:
        return self._ask(SaveBlocks(1, 0, 1, 0, slots), BlocksSaved)

    def restore(self, blocks: list[BlockRef], n_tokens: int) -> BlocksRestored:
        self._ask(Step(1, [SequenceRef(1, 1)], [OpenSequence(1, 1, GREEDY)], []), Stepped)
        answer = self._ask(RestoreBlocks(1, 1, 1, blocks, n_tokens), BlocksRestored)
        assert not answer.bad
        return answer

    def stop(self) -> None:
        self._executor.handle(Stop())
        self._executor.join(10)


def measure(model: Path, n_tokens: int, block_tokens: int, rounds: int, n_threads: int) -> dict[str, object]:
    arena = Arena(4 << 30)
    worker = Worker(model, n_tokens, block_tokens, n_threads, arena)
    arena.shape(worker.loaded.block_bytes)
    tokens = random.Random(1).choices(range(5, worker.loaded.n_vocab), k=n_tokens)
    slots = [arena.allocate() for _ in range(n_tokens // block_tokens)]
    times: dict[str, list[float]] = {
        "cold prefill": [],
        "save": [],
        "save, decode thread": [],
        "restore": [],
        "restore, decode thread": [],
    }
    for _ in range(rounds):
        times["cold prefill"].append(worker.prefill(tokens))
        saved = worker.save(slots)
        times["save"].append(saved.seconds)
        times["save, decode thread"].append(saved.decode_seconds)
        blocks = [BlockRef(*pair) for pair in zip(slots, saved.checksums, strict=True)]
        restored = worker.restore(blocks, n_tokens)
        times["restore"].append(restored.seconds)
        times["restore, decode thread"].append(restored.decode_seconds)
    worker.stop()
    arena.close()
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "tokens": n_tokens,
        "block_tokens": block_tokens,
        "token_bytes": worker.loaded.token_bytes,
        "n_threads": n_threads,
        "rounds": rounds,
        "median_seconds": medians,
        "restore_share": medians["restore"] / medians["cold prefill"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="save and restore of a prefix, against computing it")
    parser.add_argument("--model", type=Path, help="a GGUF file; random weights in the shape of 0.1 B without it")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--block-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or build_random_model(Path(folder) / "m.gguf", n_ctx_train=8192, **SHAPE)
        result = measure(model, options.tokens, options.block_tokens, options.rounds, options.threads)
    if options.json:
        print(json.dumps(result))
        return
    medians = result["median_seconds"]
    assert isinstance(medians, dict)
    for name, seconds in medians.items():
        print(f"{name:24}{1e3 * seconds:10.1f} ms {100 * seconds / medians['cold prefill']:8.3f} %")


if __name__ == "__main__":
    main()
