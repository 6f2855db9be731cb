"""Cells of the exactness matrix: one request in every company, chunking and state of the cache.

Run as ``python cells.py MODEL FOLDER RECIPE TENANT [endless]`` it is the other process: it fills the folder under the
tenants of its cells, and prints a line for each. With ``endless`` it goes on computing and saving until it is killed.
"""

from __future__ import annotations

import random
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

sys.path.insert(0, str(Path(__file__).parent.parent / "engine"))

from caching import BLOCK, GREEDY, WILD, Cached, cached, request, tokens_of
from serving import all_at_once, mixed_requests

import paddock
from paddock.api.request import Request
from paddock.engine.batching import policy

CHUNKINGS: dict[str, tuple[int | None, ...]] = {"canonical": (None,), "invariant": (1, 7, 64, 333)}
"""Rows of a chunk under each recipe; None: random, from the recipe's minimum up."""
COMPANIES = (0, 8)
"""Neighbours."""
LENGTH = 350
"""Tokens of a prompt: more than the largest chunk, and than 256, from where on llama.cpp changes some kernels."""
RESTORED = (LENGTH - 1) // BLOCK * BLOCK

SAMPLINGS: tuple[dict[str, Any], ...] = (
    GREEDY,
    {key: value for key, value in WILD.items() if not key.startswith(("dry", "xtc"))},
    WILD,
)
REQUESTS = [request(tokens_of(40 + number, LENGTH), **sampling) for number, sampling in enumerate(SAMPLINGS)]


@contextmanager
def chunks_of(rows: int | None, rng: random.Random) -> Iterator[None]:
    """Prompts are cut into chunks of this size, whatever the policy's budget would allow."""
    plain = policy.chunk_length

    def chunk_length(remaining: int, budget: int, minimum: int, n_batch: int) -> int:
        wanted = rows if rows is not None else int(minimum * (256 / minimum) ** rng.random())
        return plain(remaining, min(budget, wanted), minimum, n_batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy, "chunk_length", chunk_length)
        yield


@asynccontextmanager
async def loaded(path: Path, folder: Path | None, recipe: str, **options: Any) -> AsyncIterator[Cached]:
    """A chunk may take a whole call, also beside running streams."""
    options = {"exactness_recipe": recipe, "prefill_chunk": 512, "isolation": "process", **options}
    async with cached(path, folder, **options) as cache:
        yield cache


@attrs.frozen
class Cell:
    """``source`` names where the cached prefix is from; it, chunking and company together are a tenant of their own."""

    source: str
    chunk: int | None
    neighbours: int

    @property
    def tenant(self) -> str:
        return f"{self.source}-{self.chunk}-{self.neighbours}"


def cells(source: str, recipe: str) -> list[Cell]:
    return [Cell(source, chunk, neighbours) for chunk in CHUNKINGS[recipe] for neighbours in COMPANIES]


async def complete_as(model: paddock.Model, tenant: str, arguments: dict[str, Any]) -> paddock.Completion:
    """As ``model.complete``, for a tenant of the cache."""
    rest = dict(arguments)
    spec = attrs.evolve(model._spec(rest.pop("prompt"), rest, streaming=False), tenant=tenant)
    async with Request(spec, model._child(spec), model._requests, model._supervisor) as handle:
        return await handle.result()


async def run(cache: Cached, cell: Cell, *, seed: int) -> list[paddock.Completion]:
    """The requests one after another; in company they and the neighbours arrive at random moments."""
    rng = random.Random(seed)
    completions: dict[int, paddock.Completion] = {}

    async def one(number: int, delay: float) -> None:
        await trio.sleep(delay)
        completions[number] = await complete_as(cache.model, cell.tenant, REQUESTS[number])

    with chunks_of(cell.chunk, rng):
        async with trio.open_nursery() as nursery:
            if cell.neighbours:
                others = mixed_requests(cell.neighbours, seed, longest=150)
                nursery.start_soon(lambda: all_at_once(cache.model, others, arrivals=random.Random(seed + 1)))
            for number in range(len(REQUESTS)):
                if cell.neighbours:
                    nursery.start_soon(one, number, rng.random() * 0.2)
                else:
                    await one(number, 0.0)
    return [completions[number] for number in range(len(REQUESTS))]


async def _fill(path: Path, folder: Path, recipe: str, source: str, *, endless: bool) -> None:
    async with loaded(path, folder, recipe) as cache:
        for cell in cells(source, recipe):
            with chunks_of(cell.chunk, random.Random(3)):
                async with trio.open_nursery() as nursery:
                    for arguments in REQUESTS:
                        short = {**arguments, "max_tokens": 1}
                        nursery.start_soon(complete_as, cache.model, cell.tenant, short)
            await cache.settled()
            print(cell.tenant, flush=True)
        round_ = 0
        while endless:
            round_ += 1
            async with trio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(cache.complete, tokens_of(1000 * round_ + number, LENGTH))


if __name__ == "__main__":
    trio.run(lambda: _fill(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:5], endless=len(sys.argv) > 5))
