"""A runtime with models for one command, and the progress of their loading on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from paddock.api.model import Model
from paddock.api.runtime import Runtime, open_runtime
from paddock.cli.options import load_arguments
from paddock.cli.output import note
from paddock.cli.terminal import is_interactive
from paddock.config import ModelConfig, RuntimeConfig
from paddock.models.references import resolve

__all__ = ["load_with_progress", "loaded_model", "model_config", "progress_of"]

_LINE_SECONDS = 2.0
"""Without a terminal, a line of progress comes no more often than this."""


def model_config(source: str, options: Mapping[str, Any], **defaults: Any) -> ModelConfig:
    """The configuration that the command line asks for. Raises InvalidConfiguration and ModelNotFound."""
    resolve(source)
    return ModelConfig(source=source, **{**defaults, **load_arguments(options)})


@asynccontextmanager
async def loaded_model(
    config: ModelConfig, *, quiet: bool, runtime_config: RuntimeConfig | None = None
) -> AsyncIterator[tuple[Runtime, Model]]:
    """Opens a runtime with one model; at the end everything is stopped, and no process is left."""
    async with open_runtime(runtime_config) as runtime:
        yield runtime, await load_with_progress(runtime, config, quiet=quiet)


async def load_with_progress(runtime: Runtime, config: ModelConfig, *, quiet: bool) -> Model:
    """Loads a model and shows how far it is, on stderr: a bar on a terminal, a few lines elsewhere."""
    with progress_of(f"loading {config.served_name}", quiet) as report:
        return await runtime.load_model(config, on_progress=report)


@contextmanager
def progress_of(what: str, quiet: bool) -> Iterator[Callable[[float], None]]:
    """Yields a function that is to be told the fraction done; ``what`` is a phrase such as "loading cria"."""
    if quiet:
        yield lambda _: None
    elif is_interactive(2):
        with _bar(what) as report:
            yield report
    else:
        with _lines(what) as report:
            yield report


@contextmanager
def _bar(what: str) -> Iterator[Callable[[float], None]]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(escape(what), total=1.0)
        yield lambda fraction: progress.update(task, completed=fraction)


@contextmanager
def _lines(what: str) -> Iterator[Callable[[float], None]]:
    started = last = time.monotonic()

    def report(fraction: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _LINE_SECONDS and 0.0 < fraction < 1.0:
            last = now
            note(f"{what}: {fraction:.0%}")

    note(what)
    yield report
    note(f"{what}: done in {time.monotonic() - started:.1f} s")
    sys.stderr.flush()
