"""The three interfaces, and a configuration small enough for a busy machine."""

from __future__ import annotations

from typing import Any

import pytest
from flavours import FLAVOURS, Flavour

SMALL = {"n_ctx": 512, "n_seq_max": 2, "n_threads": 1, "isolation": "thread"}


@pytest.fixture(params=FLAVOURS, ids=lambda flavour: flavour.name)
def flavour(request: pytest.FixtureRequest) -> Flavour:
    found: Flavour = request.param
    return found


@pytest.fixture
def small() -> dict[str, Any]:
    """Options of ``load_model`` for one small model."""
    return dict(SMALL)
