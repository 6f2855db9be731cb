"""Local language models on trio, supervised the way Erlang/OTP supervises processes.

    import paddock, trio

    async def main() -> None:
        async with paddock.open_runtime() as runtime:
            model = await runtime.load_model("cria")
            print((await model.complete("Once upon a time", max_tokens=48, seed=7)).text)

    trio.run(main)

``paddock.aio`` offers the same from asyncio, ``paddock.blocking`` from plain threads.
"""

from paddock.api.model import Model
from paddock.api.request import Request
from paddock.api.runtime import Runtime, TreeNode, open_runtime
from paddock.config import ModelConfig, RuntimeConfig
from paddock.engine.results import Completion, Delta, TokenLogprob, Usage
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
    QueueFull,
    RequestCancelled,
    RequestError,
    RuntimeClosed,
    SamplingFailed,
    WorkerDied,
)
from paddock.models.facts import ModelFacts
from paddock.sampling.parameters import SamplingParameters

__version__ = "0.1.0"

__all__ = [
    "ChatTemplateError",
    "ChatTemplateMissing",
    "Completion",
    "ContextOverflow",
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
    "QueueFull",
    "Request",
    "RequestCancelled",
    "RequestError",
    "Runtime",
    "RuntimeClosed",
    "RuntimeConfig",
    "SamplingFailed",
    "SamplingParameters",
    "TokenLogprob",
    "TreeNode",
    "Usage",
    "WorkerDied",
    "open_runtime",
]
