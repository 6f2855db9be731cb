"""Models that every suite shares; built once per session."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from gguf_builders import build_random_model, build_scripted_model, quantize_to_q4_k_m
from paddock.telemetry.logging import LOGGERS


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Logging is set up for a whole process, which here is that of all tests; even ``capture_logs`` leaves structlog
    configured."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger, list(logger.handlers), logger.level, logger.propagate) for logger in loggers]
    yield
    structlog.reset_defaults()
    for logger, handlers, level, propagate in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What outlives a process is kept for this run of the tests alone: certificates, so that a model that many tests
    load is probed once."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        yield folder


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def tiny_model_path(model_directory: Path) -> Path:
    """Random llama model, 4 layers × 256, vocabulary 2,048, Q8_0, 4,096 tokens of context."""
    return build_random_model(model_directory / "tiny-q8_0.gguf")


@pytest.fixture(scope="session")
def tiny_f16_model_path(model_directory: Path) -> Path:
    """As ``tiny_model_path`` with F16 weights."""
    return build_random_model(model_directory / "tiny-f16.gguf", weight_type="f16")


@pytest.fixture(scope="session")
def tiny_k_quant_model_path(model_directory: Path, tiny_f16_model_path: Path) -> Path:
    """As ``tiny_model_path`` in Q4_K_M."""
    return quantize_to_q4_k_m(tiny_f16_model_path, model_directory / "tiny-q4_k_m.gguf")


@pytest.fixture(scope="session")
def scripted_model(model_directory: Path) -> Callable[..., Path]:
    """``scripted_model(script, then="stop" | "repeat", chat_template=...)`` → path of a model emitting it."""
    built: dict[object, Path] = {}

    def build(script: bytes, **options: object) -> Path:
        key = (script, tuple(sorted(options.items())))
        if key not in built:
            path = model_directory / f"scripted-{len(built)}.gguf"
            built[key] = build_scripted_model(path, script, **options)  # type: ignore[arg-type]
        return built[key]

    return build
