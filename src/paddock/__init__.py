"""Local language models on trio, supervised the way Erlang/OTP supervises processes.

    import paddock, trio

    async def main() -> None:
        async with paddock.open_runtime() as runtime:
            model = await runtime.load_model("cria")
            print((await model.complete("Once upon a time", max_tokens=48, seed=7)).text)

    trio.run(main)

``paddock.aio`` offers the same from asyncio, ``paddock.blocking`` from plain threads.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paddock.api.model import Model
    from paddock.api.request import Request
    from paddock.api.runtime import Runtime, TreeNode, open_runtime
    from paddock.api.session import Session, SessionReply
    from paddock.config import ModelConfig, RuntimeConfig
    from paddock.engine.requests.results import Completion, Delta, TokenLogprob, Usage
    from paddock.engine.statistics import ModelStatistics
    from paddock.errors import (
        ChatTemplateError,
        ChatTemplateMissing,
        ContextOverflow,
        DeadlineExceeded,
        InvalidConfiguration,
        InvalidModelFile,
        InvalidParameter,
        LogitsProcessorError,
        ModelAlreadyLoaded,
        ModelError,
        ModelLoadFailed,
        ModelNotFound,
        ModelNotLoaded,
        ModelUnavailable,
        PaddockError,
        PoisonRequest,
        QueueFull,
        RequestCancelled,
        RequestError,
        RuntimeClosed,
        SamplingFailed,
        SessionBusy,
        SessionDamaged,
        SessionError,
        SessionExists,
        SessionInterrupted,
        SessionModelMismatch,
        SessionNotFound,
        SessionNotSaved,
        SessionStoreUnusable,
        WorkerDied,
    )
    from paddock.models.facts import ModelFacts
    from paddock.sampling.parameters import SamplingParameters
    from paddock.sessions.turns import Continuation, Turn

__version__ = "0.1.0"

__all__ = [
    "ChatTemplateError",
    "ChatTemplateMissing",
    "Completion",
    "ContextOverflow",
    "Continuation",
    "DeadlineExceeded",
    "Delta",
    "InvalidConfiguration",
    "InvalidModelFile",
    "InvalidParameter",
    "LogitsProcessorError",
    "Model",
    "ModelAlreadyLoaded",
    "ModelConfig",
    "ModelError",
    "ModelFacts",
    "ModelLoadFailed",
    "ModelNotFound",
    "ModelNotLoaded",
    "ModelStatistics",
    "ModelUnavailable",
    "PaddockError",
    "PoisonRequest",
    "QueueFull",
    "Request",
    "RequestCancelled",
    "RequestError",
    "Runtime",
    "RuntimeClosed",
    "RuntimeConfig",
    "SamplingFailed",
    "SamplingParameters",
    "Session",
    "SessionBusy",
    "SessionDamaged",
    "SessionError",
    "SessionExists",
    "SessionInterrupted",
    "SessionModelMismatch",
    "SessionNotFound",
    "SessionNotSaved",
    "SessionReply",
    "SessionStoreUnusable",
    "TokenLogprob",
    "TreeNode",
    "Turn",
    "Usage",
    "WorkerDied",
    "open_runtime",
]

_HOME = {
    "ChatTemplateError": "paddock.errors",
    "ChatTemplateMissing": "paddock.errors",
    "Completion": "paddock.engine.requests.results",
    "ContextOverflow": "paddock.errors",
    "Continuation": "paddock.sessions.turns",
    "DeadlineExceeded": "paddock.errors",
    "Delta": "paddock.engine.requests.results",
    "InvalidConfiguration": "paddock.errors",
    "InvalidModelFile": "paddock.errors",
    "InvalidParameter": "paddock.errors",
    "LogitsProcessorError": "paddock.errors",
    "Model": "paddock.api.model",
    "ModelAlreadyLoaded": "paddock.errors",
    "ModelConfig": "paddock.config",
    "ModelError": "paddock.errors",
    "ModelFacts": "paddock.models.facts",
    "ModelLoadFailed": "paddock.errors",
    "ModelNotFound": "paddock.errors",
    "ModelNotLoaded": "paddock.errors",
    "ModelStatistics": "paddock.engine.statistics",
    "ModelUnavailable": "paddock.errors",
    "PaddockError": "paddock.errors",
    "PoisonRequest": "paddock.errors",
    "QueueFull": "paddock.errors",
    "Request": "paddock.api.request",
    "RequestCancelled": "paddock.errors",
    "RequestError": "paddock.errors",
    "Runtime": "paddock.api.runtime",
    "RuntimeClosed": "paddock.errors",
    "RuntimeConfig": "paddock.config",
    "SamplingFailed": "paddock.errors",
    "SamplingParameters": "paddock.sampling.parameters",
    "Session": "paddock.api.session",
    "SessionBusy": "paddock.errors",
    "SessionDamaged": "paddock.errors",
    "SessionError": "paddock.errors",
    "SessionExists": "paddock.errors",
    "SessionInterrupted": "paddock.errors",
    "SessionModelMismatch": "paddock.errors",
    "SessionNotFound": "paddock.errors",
    "SessionNotSaved": "paddock.errors",
    "SessionReply": "paddock.api.session",
    "SessionStoreUnusable": "paddock.errors",
    "TokenLogprob": "paddock.engine.requests.results",
    "TreeNode": "paddock.api.runtime",
    "Turn": "paddock.sessions.turns",
    "Usage": "paddock.engine.requests.results",
    "WorkerDied": "paddock.errors",
    "open_runtime": "paddock.api.runtime",
}


def __getattr__(name: str) -> object:
    """Imports on first use: a worker, or ``paddock models show``, needs little of this and starts at once."""
    try:
        home = _HOME[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value: object = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
