"""The KV store's index: a look-up in a large index, and what a block costs in memory.

    python bench/kv_index.py [--blocks 100000] [--tokens 30000]

Prints one JSON object: milliseconds (median and worst of several rounds) and bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from paddock.cache.blocks import DiskBlock, Slot
from paddock.cache.index import BlockIndex
from paddock.cache.keys import BlockContent, Chain, Identity

BLOCK_TOKENS = 64


def milliseconds(action: Callable[[], object], rounds: int = 20) -> dict[str, float]:
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        action()
        taken.append(1e3 * (time.perf_counter() - began))
    return {"median": round(statistics.median(taken), 3), "worst": round(max(taken), 3)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--blocks", type=int, default=100_000)
    parser.add_argument("--tokens", type=int, default=30_000)
    options = parser.parse_args()
    identity = Identity(model="m", build="b", context="c", recipe="r", block_tokens=BLOCK_TOKENS, payload_bytes=786_432)
    prompt = [token * 7919 % 32_000 for token in range(options.tokens)]

    def chain_of() -> Chain:
        chain = Chain(identity.root(), BLOCK_TOKENS)
        chain.append_prompt(prompt)
        return chain

    chain = chain_of()
    stored = len(chain.keys)
    file = DiskBlock(identity.digest().hex(), 786_624)

    tracemalloc.start()
    index = BlockIndex(1 << 50, 1 << 60)
    index.add_model(1, 786_432)
    for key in [os.urandom(20) for _ in range(options.blocks - stored)]:
        index.add_file(key, file)
    on_disk = tracemalloc.get_traced_memory()[0] / (options.blocks - stored)
    tracemalloc.stop()
    for key in chain.keys:
        index.add_file(bytes(bytearray(key)), file)

    tracemalloc.start()
    in_ram = BlockIndex(1 << 50, 1 << 60)
    in_ram.add_model(1, 786_432)
    count = 10_000
    for number in range(count):
        in_ram.take_slot(slot := Slot(1, number * 786_432))
        content = BlockContent(os.urandom(20), os.urandom(20), os.urandom(4 * BLOCK_TOKENS), os.urandom(BLOCK_TOKENS))
        in_ram.publish(content, slot, os.urandom(16), spill=False)
    ram = tracemalloc.get_traced_memory()[0] / count
    tracemalloc.stop()

    def look_up() -> None:
        found = index.walk(1, chain_of().keys)
        assert found.blocks == stored

    def continue_turn() -> None:
        turn = chain.prefix(options.tokens)
        turn.append_generated(prompt[:100])
        assert index.walk(1, turn.keys).blocks == stored

    result = {
        "blocks": index.disk_blocks,
        "prompt_tokens": options.tokens,
        "prompt_blocks": stored,
        "hash_and_walk_ms": milliseconds(look_up),
        "walk_ms": milliseconds(lambda: index.walk(1, chain.keys)),
        "next_turn_ms": milliseconds(continue_turn),
        "bytes_per_block_on_disk": round(on_disk),
        "bytes_per_block_in_ram": round(ram),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
