"""The environment variables that a model's recipe needs its worker to have."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from paddock.config import ModelConfig
from paddock.engine.batching.recipes import Recipe
from paddock.telemetry.loggers import get_logger

__all__ = ["worker_environment"]

_LOG = get_logger("paddock.exactness")


def worker_environment(config: ModelConfig, recipe: Recipe) -> Mapping[str, str]:
    """What is to be set for the worker; empty where nothing is.

    llama.cpp reads its environment once in the life of a process. A worker that is a thread of a process where the
    library is loaded already cannot be given any more of it. With ``exactness="preferred"`` it goes on without, and
    its certificate says whether that was harmless; with ``"required"`` the model is refused by its transport.
    """
    wanted = dict(recipe.environment)
    if config.isolation == "process" or config.exactness == "required" or "llama_cpp" not in sys.modules:
        return wanted
    missing = sorted(name for name, value in wanted.items() if os.environ.get(name) != value)
    if missing:
        _LOG.warning(
            "environment cannot be set any more, llama.cpp is loaded in this process; use isolation='process'",
            model=config.served_name,
            variables=missing,
        )
        return {}
    return wanted
