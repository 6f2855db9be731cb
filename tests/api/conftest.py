"""One small model, loaded in a thread of this process, for what must not bring a runtime down."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import paddock


@pytest.fixture
async def runtime() -> AsyncIterator[paddock.Runtime]:
    async with paddock.open_runtime() as runtime:
        yield runtime


@pytest.fixture
async def model(runtime: paddock.Runtime, tiny_model_path: Path) -> paddock.Model:
    return await runtime.load_model(tiny_model_path, name="tiny", isolation="thread", n_ctx=300, n_seq_max=2)
