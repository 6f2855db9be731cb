"""One option for each sampling parameter, made from the table of parameters, so that none is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from paddock.cli.command import SectionOption
from paddock.cli.values import Bias, CommaIntegers, CommaNames, SchemaOrFile, TextFile
from paddock.sampling.parameters import PARAMETERS, ParameterInfo

__all__ = ["sampling_arguments", "sampling_options"]

F = TypeVar("F", bound=Callable[..., Any])

_SHORT = {"max_tokens": ("-n",), "temperature": ("-t",), "seed": ("-s",)}
_FIRST = ("max_tokens", "temperature", "seed", "stop")
"""What most people look for stands first in the help."""

_KINDS: Mapping[str, dict[str, Any]] = {
    "float": {"type": float},
    "int": {"type": int},
    "int | None": {"type": int},
    "bool": {"type": bool},
    "tuple[str, ...]": {"type": str, "multiple": True},
    "tuple[int, ...]": {"type": CommaIntegers(), "multiple": True},
    "tuple[tuple[int, float], ...]": {"type": Bias(), "multiple": True},
}
_KINDS_BY_NAME: Mapping[str, dict[str, Any]] = {
    "json_schema": {"type": SchemaOrFile()},
    "regex": {"type": click.STRING},
    "grammar": {"type": TextFile()},
}
_METAVARS = {"float": "NUMBER", "int": "N", "int | None": "N", "tuple[str, ...]": "TEXT"}


def sampling_options(function: F) -> F:
    """Adds the options; none has a default of its own, so what is not given is left to Paddock."""
    ordered = sorted(PARAMETERS, key=lambda info: _FIRST.index(info.name) if info.name in _FIRST else len(_FIRST))
    for info in reversed(ordered):
        function = _option(info)(function)
    return function


def sampling_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that were given, as ``SamplingParameters`` takes them."""
    arguments: dict[str, Any] = {}
    for info in PARAMETERS:
        value = options.get(info.name)
        if value is None or (value == () and info.name != "sampler_order"):
            continue
        if info.type == "tuple[int, ...]":
            value = tuple(token for group in value for token in group)
        arguments[info.name] = value
    return arguments


def _option(info: ParameterInfo) -> Callable[[F], F]:
    flag = "--" + info.name.replace("_", "-")
    shared: dict[str, Any] = {"cls": SectionOption, "section": "Sampling", "default": None, "help": _help(info)}
    if info.type == "bool":
        return click.option(f"{flag}/--no-{flag[2:]}", info.name, is_flag=True, **shared)
    if info.name == "sampler_order":
        return click.option(flag, info.name, type=CommaNames(), metavar="NAME[,NAME]...", **shared)
    kind = _KINDS_BY_NAME.get(info.name) or _KINDS[info.type]
    metavar = _METAVARS.get(info.type) or kind["type"].name.upper()
    return click.option(*_SHORT.get(info.name, ()), flag, info.name, metavar=metavar, **kind, **shared)


def _help(info: ParameterInfo) -> str:
    repeat = " May be given more than once." if info.type.startswith("tuple") and info.name != "sampler_order" else ""
    return f"{info.meaning} {_sentence(info.range)}{repeat}  [default: {_default(info.default)}]"


def _sentence(allowed: str) -> str:
    return f"{allowed[0].upper()}{allowed[1:]}."


def _default(value: object) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return ",".join(item if item.isidentifier() else repr(item) for item in map(str, value))
    return str(value)
