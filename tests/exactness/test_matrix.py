"""The matrix of exactness: every cell of a recipe gives the same token ids, and the same bits of log-probabilities.

    {alone, 8 neighbours with random arrivals}
  x {canonical in random chunks from the minimum up, invariant in chunks of 1, 7, 64, 333}
  x {cold, from RAM, from disk, saved by another process, after ``kill -9`` of everything}
  x {greedy, temperature 1 with penalties, the same with DRY and XTC}

for weights in Q8_0, Q4_0, Q4_K_M and Q6_K and two sizes of model. All of it is in the slow group (``make test-slow``).
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import cells
import psutil
import pytest
import trio
from cells import Cell, loaded, run

import paddock
from gguf_builders import build_random_model
from paddock.native.quantize import quantize_model

SHAPES = {
    "small": {"n_layer": 4, "n_embd": 256, "n_head": 4, "n_head_kv": 2, "n_ff": 512},
    "medium": {"n_layer": 3, "n_embd": 512, "n_head": 8, "n_head_kv": 2, "n_ff": 1024},
}
TYPES = ("Q8_0", "Q4_0", "Q4_K_M", "Q6_K")


@pytest.fixture(scope="session")
def f16_paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("matrix")
    return {
        size: build_random_model(folder / f"{size}-f16.gguf", weight_type="f16", **shape)
        for size, shape in SHAPES.items()
    }


def quantized(source: Path, kind: str) -> Path:
    """In the types that a published file of this kind has; made once."""
    path = source.with_name(source.name.replace("f16", kind))
    if not path.exists():
        quantize_model(source, path, kind, n_threads=1)
    return path


@asynccontextmanager
async def other_process(*arguments: object) -> AsyncIterator[trio.Process]:
    """Runs ``cells.py``; ended with everything that it has started, at the latest."""
    command = [sys.executable, cells.__file__, *map(str, arguments)]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(partial(trio.run_process, command, stdout=subprocess.PIPE, check=False))
        yield process
        kill_everything(process)


def kill_everything(process: trio.Process) -> None:
    """``kill -9`` of a process and of its workers, the workers last: they see their parent gone."""
    try:
        parent = psutil.Process(process.pid)
        family = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            pass


async def until_filled(process: trio.Process, tenants: int) -> None:
    """Until it has said that it has saved under each tenant."""
    assert process.stdout is not None
    seen = 0
    async for data in process.stdout:
        seen += data.count(b"\n")
        if seen == tenants:
            return
    raise AssertionError(f"the other process ended after {seen} of {tenants} tenants")


async def check(cache: cells.Cached, cell: Cell, expected: list[paddock.Completion], *, restored: int) -> None:
    completions = await run(cache, cell, seed=len(cell.tenant) * 16 + (cell.chunk or 0))
    assert completions == expected, cell
    assert [completion.usage.cached_tokens for completion in completions] == [restored] * len(completions), cell


@pytest.mark.slow
@pytest.mark.parametrize("recipe", cells.CHUNKINGS)
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("size", SHAPES)
async def test_every_cell_of_a_recipe_gives_the_same_bytes(
    f16_paths: dict[str, Path], tmp_path: Path, size: str, kind: str, recipe: str
) -> None:
    path = quantized(f16_paths[size], kind)
    async with loaded(path, None, recipe, prefix_cache=False) as cache:
        expected = [await cache.model.complete(**arguments) for arguments in cells.REQUESTS]
    assert len({completion.token_ids for completion in expected}) == len(expected)
    own = cells.cells("own", recipe)
    async with (
        other_process(path, tmp_path, recipe, "other") as other,
        other_process(path, tmp_path, recipe, "killed", "endless") as killed,
    ):
        async with loaded(path, tmp_path, recipe) as cache:
            for cell in own:
                await check(cache, cell, expected, restored=0)
            await cache.settled()
            for cell in own:
                await check(cache, cell, expected, restored=cells.RESTORED)
            await cache.settled()
        await until_filled(other, len(own))
        assert await other.wait() == 0
        await until_filled(killed, len(own))
        await trio.sleep(random.Random(f"{size} {kind} {recipe}").random() * 0.3)
        kill_everything(killed)
        assert await killed.wait() != 0
    async with loaded(path, tmp_path, recipe) as cache:
        for source in ("own", "other", "killed"):
            for cell in cells.cells(source, recipe):
                await check(cache, cell, expected, restored=cells.RESTORED)
        statistics = await cache.statistics()
        assert statistics.fetched_blocks > 0
        assert statistics.verification_failures == 0


CUT = {
    "canonical": ("Q4_K_M", [Cell("own", None, 8)]),
    "invariant": ("Q8_0", [Cell("own", 7, 8), Cell("own", 333, 0)]),
}
"""What varies most at once."""


@pytest.mark.parametrize("recipe", CUT)
async def test_a_cut_through_the_matrix_gives_the_same_bytes(
    tiny_model_path: Path, tiny_k_quant_model_path: Path, tmp_path: Path, recipe: str
) -> None:
    kind, chosen = CUT[recipe]
    path = tiny_model_path if kind == "Q8_0" else tiny_k_quant_model_path
    async with loaded(path, None, recipe, prefix_cache=False) as cache:
        expected = [await cache.model.complete(**arguments) for arguments in cells.REQUESTS]
    for restored in (0, cells.RESTORED):
        async with loaded(path, tmp_path, recipe) as cache:
            for cell in chosen:
                await check(cache, cell, expected, restored=restored)
                await cache.settled()
                await check(cache, cell, expected, restored=cells.RESTORED)
            await cache.settled()
