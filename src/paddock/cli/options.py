"""Options that several commands share: the model and how it is loaded, output, log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from paddock.cli.command import SectionOption
from paddock.cli.values import ModelReference

__all__ = ["LOAD_OPTIONS", "json_option", "load_arguments", "load_options", "log_options", "set_up_log"]

F = TypeVar("F", bound=Callable[..., Any])

LOADING = "Loading"
LOG = "Log and progress"

LOAD_OPTIONS: Mapping[str, str] = {
    "n_ctx": "n_ctx",
    "threads": "n_threads",
    "gpu_layers": "n_gpu_layers",
    "isolation": "isolation",
    "exactness": "exactness",
    "exactness_recipe": "exactness_recipe",
    "probe_seconds": "probe_seconds",
    "load_timeout": "load_timeout",
}
"""The command's parameter, and the field of ``ModelConfig`` that it sets."""


def model_option(function: F) -> F:
    return click.option(
        "-m", "--model", type=ModelReference(), default="cria", show_default=True, metavar="MODEL",
        help="Model name, or the path of a GGUF file.",
    )(function)  # fmt: skip


def load_options(function: F) -> F:
    """How the model is loaded; what is not given is left to ``paddock.ModelConfig``."""
    for decorate in (
        click.option(
            "--load-timeout", type=float, metavar="SECONDS", cls=SectionOption, section=LOADING,
            help="Longest time that loading may take.  [default: 600]",
        ),
        click.option(
            "--probe-seconds", type=float, metavar="SECONDS", cls=SectionOption, section=LOADING,
            help="Longest time for finding out, before the model serves, whether it is exact.  [default: 10]",
        ),
        click.option(
            "--exactness-recipe", type=click.Choice(["canonical", "invariant"]), cls=SectionOption, section=LOADING,
            help="canonical: a schedule, at nearly full speed; invariant: kernels, so that replies depend on "
            "nothing but the tokens.  [default: canonical]",
        ),
        click.option(
            "--exactness", type=click.Choice(["preferred", "required", "off"]), cls=SectionOption, section=LOADING,
            help="preferred: the schedule under which a reply does not depend on what else runs; off: the fastest "
            "settings; required: refuse a model for which it is not certified.  [default: preferred]",
        ),
        click.option(
            "--isolation", type=click.Choice(["process", "thread"]), cls=SectionOption, section=LOADING,
            help="process: llama.cpp runs in a process of its own, whose crash is survived; thread: in this one.  "
            "[default: process]",
        ),
        click.option(
            "--gpu-layers", type=int, metavar="N", cls=SectionOption, section=LOADING,
            help="Layers placed on a GPU; -1 for all.  [default: 0]",
        ),
        click.option(
            "--threads", type=int, metavar="N", cls=SectionOption, section=LOADING,
            help="Threads that compute.  [default: the CPUs there are, at most 16; 1 for a model below 32 MiB]",
        ),
        click.option(
            "--n-ctx", type=int, metavar="N", cls=SectionOption, section=LOADING,
            help="Tokens that prompt and reply may have together.  [default: what the model was trained for, at most "
            "4096]",
        ),
    ):  # fmt: skip
        function = decorate(function)
    return function


def load_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ``ModelConfig`` that were set on the command line."""
    return {field: options[name] for name, field in LOAD_OPTIONS.items() if options.get(name) is not None}


def json_option(function: F) -> F:
    return click.option(
        "--json", "as_json", is_flag=True,
        help="Print one JSON object on stdout and nothing else; errors too, as an object with the key error.",
    )(function)  # fmt: skip


def log_options(function: F) -> F:
    """What goes to stderr beside errors."""
    for decorate in (
        click.option(
            "-q", "--quiet", is_flag=True, cls=SectionOption, section=LOG, help="No progress and no summary on stderr."
        ),
        click.option(
            "--log-format", type=click.Choice(["console", "json"]), default="console", show_default=True,
            cls=SectionOption, section=LOG, help="How log lines look.",
        ),
        click.option(
            "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), cls=SectionOption, section=LOG,
            help="Log from this level upwards, on stderr.  [default: warning]",
        ),
        click.option(
            "-v", "--verbose", count=True, cls=SectionOption, section=LOG, help="Log more: -v is info, -vv is debug."
        ),
    ):  # fmt: skip
        function = decorate(function)
    return function


def set_up_log(options: Mapping[str, Any]) -> None:
    """Configures logging as the options say; ``--log-level`` stands above ``-v``."""
    from paddock.telemetry.logging import configure_logging

    by_count = ("warning", "info", "debug")[min(options.get("verbose") or 0, 2)]
    configure_logging(options.get("log_level") or by_count, renderer=options.get("log_format") or "console")
