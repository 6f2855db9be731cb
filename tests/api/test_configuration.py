"""Configuration values and files: refused where they are wrong, with a typed error that names the place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from paddock.config import ModelConfig, RuntimeConfig, read_runtime_config
from paddock.errors import InvalidConfiguration


class BytesPath(os.PathLike[bytes]):
    def __fspath__(self) -> bytes:
        return b"model.gguf"


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"source": BytesPath()}, "source"),
        ({"source": "a\0b"}, "source"),
        ({"load_timeout": float("inf")}, "load_timeout"),
        ({"load_timeout": float("nan")}, "load_timeout"),
        ({"load_timeout": 10**400}, "load_timeout"),
        ({"restart_period": float("inf")}, "restart_period"),
        ({"isolation": ["process"]}, "isolation"),
        ({"n_threads": True}, "n_threads"),
        ({"n_batch": "64"}, "n_batch"),
        ({"n_batch": 64, "prefill_chunk": 65}, "prefill_chunk"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else None,
)
def test_a_wrong_value_is_refused_by_its_field(values: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        ModelConfig(**{"source": "cria", **values})
    assert caught.value.field == field


def test_a_small_batch_needs_no_word_on_prefill_chunks() -> None:
    assert ModelConfig(source="cria", n_batch=64).prefill_chunk == 64
    assert ModelConfig(source="cria").prefill_chunk == 128


@pytest.mark.parametrize("models", ["cria", 3, ("cria",), (ModelConfig(source="a"), ModelConfig(source="a"))], ids=str)
def test_models_of_a_runtime_are_configurations_with_names_of_their_own(models: Any) -> None:
    with pytest.raises(InvalidConfiguration, match="models"):
        RuntimeConfig(models=models)


@pytest.mark.parametrize(
    "content",
    [
        b"x = " + b"[" * 50_000,
        b"x = " + b"9" * 5_000,
        b"\xff\xfe",
        b"runtime = 3",
        b"models = [3]",
        b'[models]\nsource = "cria"',
        b'[[models]]\nsource = "cria"\nn_ctxx = 1',
        b'[[models]]\nsource = ["cria"]',
        b"[runtime]\nshutdown_timeout = nan",
        b"# long\n" * 200_000,
    ],
    ids=lambda content: str(content[:30]),
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "paddock.toml"
    path.write_bytes(content)
    with pytest.raises(InvalidConfiguration):
        read_runtime_config(path)


@pytest.mark.parametrize("path", ["nul\0byte", "/", 1, None])
def test_a_path_that_is_no_file_is_refused(path: Any) -> None:
    with pytest.raises(InvalidConfiguration):
        read_runtime_config(path)
