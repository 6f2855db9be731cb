"""A model whose workers die, or hang, whenever they compute certain requests: see ``faulty_worker.py``."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import faulty_worker
import pytest

import paddock
from paddock.engine import tree
from paddock.engine.worker.port import Port

SEEDS = {fault: seed for seed, fault in faulty_worker.FAULTS.items()}
"""The seed that a request needs to bring its worker down in a certain way."""


class FaultyPort(Port):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        command = [sys.executable, "-P", str(Path(faulty_worker.__file__))]
        super().__init__(*arguments, worker_command=command, **options)


@asynccontextmanager
async def faulty(path: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> AsyncIterator[paddock.Model]:
    monkeypatch.setattr(tree, "Port", FaultyPort)
    async with paddock.open_runtime() as runtime:
        options = {"n_ctx": 1024, "n_seq_max": 16, "n_threads": 1, "probe_seconds": 0.0, **options}
        yield await runtime.load_model(path, name="tiny", **options)
