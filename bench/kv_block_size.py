"""How many tokens a block of the prefix cache should have: what it costs to save, restore, write and read a prefix.

    .venv/bin/python bench/kv_block_size.py MODEL.gguf [--tokens 4096] [--rounds 5] [--sizes 16,32,64,128,256]

A worker for each size computes the prompt once; then the sizes take turns, so that all meet the same noise. Prints
medians in milliseconds for the whole prompt, the index's memory per 1,000 tokens on disk and in RAM (by the figures
of bench/kv_index.py, and the tokens themselves), and the tokens that are computed again at a prompt's end on average.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from kv_state import Worker

from paddock.cache.arena import Arena
from paddock.cache.block_file import BlockHeader
from paddock.cache.folder import CacheFolder
from paddock.cache.keys import Chain, Identity
from paddock.engine.worker.protocol import BlockRef

DISK_ENTRY_BYTES = 159
RAM_ENTRY_BYTES = 923 - 5 * 64
"""Without the tokens and classes of the block, 5 bytes for each token."""


class Size:
    """One block size: its worker, its arena, and the times taken."""

    def __init__(self, model: Path, tokens: list[int], block_tokens: int, threads: int, folder: Path) -> None:
        self.block_tokens, self._n_tokens = block_tokens, len(tokens)
        self._arena = Arena(4 << 30)
        self._worker = Worker(model, len(tokens), block_tokens, threads, self._arena)
        self._arena.shape(self._worker.loaded.block_bytes)
        self.payload_bytes = self._worker.loaded.block_bytes
        self._slots = [self._arena.allocate() for _ in range(len(tokens) // block_tokens)]
        self._identity = Identity(
            model="m", build="b", context="c", recipe="r", block_tokens=block_tokens, payload_bytes=self.payload_bytes
        )
        self._chain = Chain(self._identity.root(), block_tokens)
        self._chain.append_prompt(tokens)
        self._folder, self._rounds = folder, 0
        self.times: dict[str, list[float]] = {}
        self._worker.prefill([token % self._worker.loaded.n_vocab for token in tokens])

    def round(self) -> None:
        saved = self._worker.save(self._slots)
        blocks = [BlockRef(*pair) for pair in zip(self._slots, saved.checksums, strict=True)]
        restored = self._worker.restore(blocks, self._n_tokens)
        self._note("save", saved.seconds)
        self._note("restore", restored.seconds)
        self._rounds += 1
        folder = CacheFolder.open(self._folder / f"{self.block_tokens}-{self._rounds}")
        identity = self._identity.digest()
        started = time.perf_counter()
        for number, block in enumerate(blocks):
            header = BlockHeader(identity, self._chain.content(number), self.payload_bytes, block.checksum)
            with self._arena.payload(block.offset) as payload:
                folder.write(header, payload)
        self._note("write", time.perf_counter() - started)
        into = memoryview(bytearray(self.payload_bytes))
        started = time.perf_counter()
        for key in self._chain.keys:
            folder.read(identity.hex(), key, into)
        self._note("read", time.perf_counter() - started)
        folder.close()

    def _note(self, name: str, seconds: float) -> None:
        self.times.setdefault(name, []).append(1e3 * seconds)

    def row(self) -> str:
        medians = [statistics.median(self.times[name]) for name in ("save", "restore", "write", "read")]
        per_thousand = 1000 / self.block_tokens
        on_disk = per_thousand * DISK_ENTRY_BYTES / 1024
        in_ram = (per_thousand * RAM_ENTRY_BYTES + 5000) / 1024
        figures = " | ".join(f"{milliseconds:,.1f}" for milliseconds in medians)
        memory, tail = f"{on_disk:.1f} | {in_ram:.1f}", (self.block_tokens - 1) / 2
        return f"| {self.block_tokens} | {self.payload_bytes // 1024:,} | {figures} | {memory} | {tail} |"

    def stop(self) -> None:
        self._worker.stop()
        self._arena.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="the size of a block")
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sizes", default="16,32,64,128,256")
    options = parser.parse_args()
    tokens = random.Random(1).choices(range(5, 1 << 20), k=options.tokens)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        sizes = [
            Size(options.model, tokens, int(size), options.threads, Path(folder)) for size in options.sizes.split(",")
        ]
        for _ in range(options.rounds):
            for size in sizes:
                size.round()
    print("| tokens | KiB | save | restore | write | read | index on disk, KiB | index in RAM, KiB | tail |")
    print("|---|---|---|---|---|---|---|---|---|")
    for size in sizes:
        print(size.row())
        size.stop()


if __name__ == "__main__":
    main()
