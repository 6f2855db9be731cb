"""What the tests of the command line share: logging put back as it was, models of a known text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

ENDLESS = b"Hello wide world. "


@pytest.fixture(scope="session")
def endless_model(scripted_model: Callable[..., Path]) -> Path:
    """A model that writes ``ENDLESS`` again and again."""
    return scripted_model(ENDLESS, then="repeat")


@pytest.fixture(scope="session")
def greeting_model(scripted_model: Callable[..., Path]) -> Path:
    """A model that answers "Hello!" to everything, and stops."""
    return scripted_model(b"Hello!")
