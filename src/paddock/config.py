"""Configuration values: what a runtime and a model may be told, checked when they are made.

A configuration can be written in TOML and is read with :func:`read_runtime_config`; unknown keys are refused.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import attrs
import platformdirs

from paddock.errors import InvalidConfiguration

__all__ = [
    "Exactness",
    "ExactnessRecipe",
    "Isolation",
    "ModelConfig",
    "RuntimeConfig",
    "read_runtime_config",
    "user_cache_dir",
    "user_state_dir",
]

Isolation = Literal["process", "thread"]
Exactness = Literal["preferred", "required", "off"]
ExactnessRecipe = Literal["canonical", "invariant"]

_MAX_TOML_BYTES = 1 << 20

_Check = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def _whole(low: int, high: int, *, optional: bool = False) -> _Check:
    def check(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value is None and optional:
            return
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise InvalidConfiguration(attribute.name, f"{value!r} is not a whole number from {low} to {high}")

    return check


_YEAR = 31_536_000.0


def _true_or_false(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, bool):
        raise InvalidConfiguration(attribute.name, f"{value!r} is not true or false")


def _seconds(low: float, high: float = _YEAR) -> _Check:
    def check(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise InvalidConfiguration(attribute.name, f"{value!r} is not a number of seconds from {low:g} to {high:g}")

    return check


def _one_of(*allowed: str) -> _Check:
    def check(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value not in allowed:
            raise InvalidConfiguration(attribute.name, f"{value!r} is not one of {', '.join(map(repr, allowed))}")

    return check


def _name(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, str) or not value or len(value) > 200 or not value.isprintable():
        raise InvalidConfiguration(attribute.name, f"{value!r} is not a printable name of 1 to 200 characters")


def _source(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(path, str) or not path or "\0" in path:
        raise InvalidConfiguration(attribute.name, f"{value!r} is neither a model name nor a path")


def _folder(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if value is not None and (not isinstance(path, str) or not path or "\0" in path):
        raise InvalidConfiguration(attribute.name, f"{value!r} is no path of a folder")


def _default_prefill_chunk(config: ModelConfig) -> int:
    n_batch: object = config.n_batch  # not checked yet when attrs asks for this default
    return min(128, n_batch) if isinstance(n_batch, int) else 128


@attrs.frozen(kw_only=True)
class ModelConfig:
    """How one model is loaded and served.

    ``n_ctx`` counts the tokens of *one* sequence (prompt and reply together); llama.cpp's own parameter of that
    name is ``n_ctx * n_seq_max``. The KV cache for all sequences is reserved when the model is loaded.
    """

    source: str | Path = attrs.field(validator=_source)
    """A model name (``"cria"``) or the path of a GGUF file."""
    name: str | None = attrs.field(default=None, validator=_name)
    """The name it is served under; by default the model name, or the file's stem."""
    n_ctx: int | None = attrs.field(default=None, validator=_whole(16, 1 << 22, optional=True))
    """Tokens per sequence; by default the model's training context, at most 4,096."""
    n_seq_max: int = attrs.field(default=8, validator=_whole(1, 256))
    """Requests that decode at once; more wait in the queue."""
    n_batch: int = attrs.field(default=512, validator=_whole(32, 8192))
    """Most rows in one decode call, so the longest prefill chunk when nobody is decoding."""
    prefill_chunk: int = attrs.field(
        default=attrs.Factory(_default_prefill_chunk, takes_self=True), validator=_whole(16, 8192)
    )
    """Longest prefill chunk while other requests are decoding: the bound of their stall. By default 128, or
    ``n_batch`` where that is less."""
    n_threads: int | None = attrs.field(default=None, validator=_whole(1, 512, optional=True))
    """Threads of a decode call; by default the CPUs that this process may use, at most 16, and 1 for a model file
    below 32 MiB, whose threads would wait for each other longer than they compute."""
    n_gpu_layers: int = attrs.field(default=0, validator=_whole(-1, 10_000))
    """Layers placed on a GPU; -1 for all."""
    isolation: Isolation = attrs.field(default="process", validator=_one_of("process", "thread"))
    """``"process"``: a crash of llama.cpp ends a child process; ``"thread"``: the same engine in this process."""
    exactness: Exactness = attrs.field(default="preferred", validator=_one_of("preferred", "required", "off"))
    """``"preferred"``: the exact recipe, probed at load, and a certificate that says what holds; ``"required"``: the
    same, but a model for which it does not hold is refused; ``"off"``: the fastest settings."""
    exactness_recipe: ExactnessRecipe = attrs.field(default="canonical", validator=_one_of("canonical", "invariant"))
    """``"canonical"``: a schedule, at nearly full speed; logits depend on the tokens and on which of them were prompt.
    ``"invariant"``: kernels; logits depend on the tokens alone, which is slower in a long context."""
    probe_seconds: float = attrs.field(default=10.0, validator=_seconds(0.0, 86_400.0))
    """Longest time that the probe of exactness may take at load. What it has no time for is not certified. A small
    model needs about a second, and a model that was probed before none."""
    prefix_cache: bool = attrs.field(default=True, validator=_true_or_false)
    """Whether requests restore the longest beginning of their prompt that was computed before, and save theirs."""
    save_every: int = attrs.field(default=256, validator=_whole(0, 1 << 20))
    """Most generated tokens between two saves of a running reply, which is what a crash can cost; fewer, down to a
    block, where computing them again would take longer than a second. 0: only at its end. A prompt is saved when it has
    been computed."""
    queue_limit: int = attrs.field(default=256, validator=_whole(0, 1_000_000))
    """Requests that may wait for a sequence; one more is refused with ``QueueFull``."""
    delta_buffer: int = attrs.field(default=64, validator=_whole(1, 65_536))
    """Deltas that wait for a slow consumer before its row is paused."""
    load_timeout: float = attrs.field(default=600.0, validator=_seconds(0.1))
    """Seconds a load (or a reload after a crash) may take."""
    max_restarts: int = attrs.field(default=5, validator=_whole(0, 1000))
    """Worker deaths within ``restart_period`` that are answered by a restart; one more takes it out of service."""
    restart_period: float = attrs.field(default=60.0, validator=_seconds(0.1))
    """Seconds for which a worker's death counts."""
    heartbeat_timeout: float = attrs.field(default=30.0, validator=_seconds(0.0))
    """Seconds for which the worker process may answer no ping before it is killed and started again; 0: it is not
    watched, and neither are its steps."""
    step_timeout: float = attrs.field(default=60.0, validator=_seconds(0.1))
    """Least seconds that a step may take before the worker counts as hung. More where its rows are slow: twenty times
    the slowest row so far, for each row."""
    step_timeout_max: float = attrs.field(default=3600.0, validator=_seconds(0.1))
    """Most seconds that a step may take, also the first one, before which nothing was measured."""
    shutdown_timeout: float = attrs.field(default=5.0, validator=_seconds(0.0))
    """Seconds the worker has to free its context before it is killed."""

    def __attrs_post_init__(self) -> None:
        if self.prefill_chunk > self.n_batch:
            raise InvalidConfiguration("prefill_chunk", f"{self.prefill_chunk} exceeds n_batch={self.n_batch}")
        if self.step_timeout > self.step_timeout_max:
            most = f"step_timeout_max={self.step_timeout_max:g}"
            raise InvalidConfiguration("step_timeout", f"{self.step_timeout:g} exceeds {most}")

    @property
    def served_name(self) -> str:
        """The name under which the model is served."""
        if self.name is not None:
            return self.name
        text = os.fspath(self.source)
        return Path(text).stem if os.sep in text or text.endswith(".gguf") else text


@attrs.frozen(kw_only=True)
class RuntimeConfig:
    """How a runtime is set up; ``models`` are loaded when it opens, in order."""

    models: tuple[ModelConfig, ...] = ()
    """Models that are loaded when the runtime opens."""
    cache_dir: str | Path | None = attrs.field(default=None, validator=_folder)
    """Folder of what outlives the process: certificates of exactness, by default kept in the user's cache folder, and
    the disk tier of the prefix cache, which there is only where this is set."""
    ram_cache_bytes: int | None = attrs.field(default=None, validator=_whole(0, 1 << 50, optional=True))
    """Most bytes that the prefix caches of all models take in RAM; 0 for none. By default a tenth of the machine's
    memory, at most 8 GiB."""
    disk_cache_bytes: int = attrs.field(default=16 << 30, validator=_whole(0, 1 << 60))
    """Most bytes of the disk tier in ``cache_dir``; 0 for none."""
    cache_block_tokens: int = attrs.field(default=64, validator=_whole(16, 1024))
    """Tokens in a block of the prefix cache: what is shared, stored and restored are whole blocks."""
    state_dir: str | Path | None = attrs.field(default=None, validator=_folder)
    """Folder in which sessions are kept; by default ``paddock`` in the user's folder for state. It is made when the
    first session is opened."""
    shutdown_timeout: float = attrs.field(default=10.0, validator=_seconds(0.0))
    """Seconds that closing the runtime may take before what is left is killed."""

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.models, tuple) or not all(isinstance(model, ModelConfig) for model in self.models):
            raise InvalidConfiguration("models", "expected a tuple of ModelConfig")
        names = [model.served_name for model in self.models]
        for name in names:
            if names.count(name) > 1:
                raise InvalidConfiguration("models", f"two of them are named {name!r}; give one another name")


def user_cache_dir() -> Path:
    """Where what can be computed again is kept unless a folder is named: the user's, by the platform's rules."""
    return platformdirs.user_cache_path("paddock", appauthor=False)


def user_state_dir() -> Path:
    """Where what must outlive the program is kept unless a folder is named: the user's, by the platform's rules."""
    return platformdirs.user_state_path("paddock", appauthor=False)


def read_runtime_config(path: str | Path) -> RuntimeConfig:
    """Reads a TOML file: ``[runtime]`` for the runtime, one ``[[models]]`` table per model.

    Raises :class:`InvalidConfiguration` for a file that cannot be read, an unknown key or a refused value.
    """
    if not isinstance(path, str | os.PathLike):  # open() would take a number for a file that is open already
        raise InvalidConfiguration("config", f"{path!r} is neither a RuntimeConfig nor the path of a TOML file")
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_TOML_BYTES + 1)
        if len(content) > _MAX_TOML_BYTES:
            raise InvalidConfiguration(str(path), f"longer than {_MAX_TOML_BYTES} bytes; is it a configuration?")
        document = tomllib.loads(content.decode())
    except (OSError, ValueError) as error:  # tomllib's own error and UnicodeDecodeError are ValueErrors
        raise InvalidConfiguration(str(path), str(error)) from error
    except RecursionError:
        raise InvalidConfiguration(str(path), "nested too deeply") from None
    unknown = set(document) - {"runtime", "models"}
    if unknown:
        raise InvalidConfiguration(str(path), f"unknown table {sorted(unknown)[0]!r}; known are runtime and models")
    runtime, models = document.get("runtime", {}), document.get("models", [])
    if not isinstance(runtime, dict) or not isinstance(models, list):
        raise InvalidConfiguration(str(path), "expected a [runtime] table and [[models]] tables")
    if "models" in runtime:
        raise InvalidConfiguration("runtime.models", "models stand in [[models]] tables of their own")
    return RuntimeConfig(**{**_known(runtime, RuntimeConfig), "models": tuple(_model(table) for table in models)})


def _model(table: Any) -> ModelConfig:
    if not isinstance(table, dict) or "source" not in table:
        raise InvalidConfiguration("models", "each [[models]] table needs a source")
    return ModelConfig(**_known(table, ModelConfig))


def _known(table: dict[str, Any], target: type) -> dict[str, Any]:
    names = {field.name for field in attrs.fields(target)}
    for key in table:
        if key not in names:
            raise InvalidConfiguration(key, f"unknown key; known are {', '.join(sorted(names))}")
    return table
