"""The house model, loaded once."""

from __future__ import annotations

from pathlib import Path

import pytest

import paddock
from tools.cria.evaluate import Reader

MODEL = Path(paddock.__file__).parent / "models" / "house" / "cria.gguf"


@pytest.fixture(scope="session")
def model_path() -> Path:
    return MODEL


@pytest.fixture(scope="session")
def reader(model_path: Path) -> Reader:
    return Reader(model_path)
