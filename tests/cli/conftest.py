"""What the tests of the command line share: logging put back as it was, models of a known text."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from paddock.telemetry.logging import LOGGERS

ENDLESS = b"Hello wide world. "


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """A command sets up logging for its whole process, which here is that of all tests."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger, list(logger.handlers), logger.level, logger.propagate) for logger in loggers]
    structured = structlog.get_config()
    yield
    structlog.configure(**structured)
    for logger, handlers, level, propagate in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate


@pytest.fixture(scope="session")
def endless_model(scripted_model: Callable[..., Path]) -> Path:
    """A model that writes ``ENDLESS`` again and again."""
    return scripted_model(ENDLESS, then="repeat")


@pytest.fixture(scope="session")
def greeting_model(scripted_model: Callable[..., Path]) -> Path:
    """A model that answers "Hello!" to everything, and stops."""
    return scripted_model(b"Hello!")
