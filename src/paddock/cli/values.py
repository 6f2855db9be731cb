"""Kinds of option values that click does not have, with their shell completion."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

__all__ = ["Amount", "Bias", "CommaIntegers", "CommaNames", "ModelReference", "SchemaOrFile", "TextFile"]

_HOUSE_MODELS = ("cria",)  # those of paddock.models.references, whose import takes longer than a shell should wait


class ModelReference(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.3 only
    """The name of a house model, or the path of a GGUF file; whether it exists is found out when it is read."""

    name = "model"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """House models first; the shell adds the files."""
        names = [CompletionItem(name) for name in _HOUSE_MODELS if name.startswith(incomplete)]
        return [*names, CompletionItem(incomplete, type="file")]


class Amount(click.FloatRange):
    """A number within a range; not a number is within none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if isinstance(number, float) and not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


class Bias(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.3 only
    """``ID=BIAS``: a token id and a number, ``-inf`` to ban the token."""

    name = "id=bias"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, float]:
        if isinstance(value, tuple):
            return value
        token, equals, bias = str(value).partition("=")
        try:
            if equals:
                return int(token), float(bias)
        except ValueError:
            pass
        raise click.BadParameter(f"{value!r} is not ID=BIAS, for example 42=-5 or 42=-inf", ctx, param)


class CommaIntegers(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.3 only
    """Whole numbers with commas between them."""

    name = "id[,id]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(item) for item in str(value).split(","))
        except ValueError:
            raise click.BadParameter(f"{value!r} is not a list of token ids, for example 2,13", ctx, param) from None


class CommaNames(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.3 only
    """Names with commas between them; nothing at all is an empty list."""

    name = "name[,name]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        return tuple(item.strip() for item in str(value).split(",")) if value else ()


class TextFile(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.3 only
    """The name of a file, whose text is the value."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return Path(value).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise click.BadParameter(f"{value!r} cannot be read: {error}", ctx, param) from None

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


class SchemaOrFile(TextFile):
    """A JSON object, or the name of a file that holds one."""

    name = "file|json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        return text if text.lstrip().startswith("{") else super().convert(value, param, ctx)
