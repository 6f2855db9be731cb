"""``paddock models``: what is known of model files."""

from __future__ import annotations

import click

from paddock.cli.command import PaddockCommand
from paddock.cli.options import json_option
from paddock.cli.values import ModelReference

__all__ = ["models"]


@click.group(short_help="Look at model files.")
def models() -> None:
    """Look at model files, without loading them."""


@models.command(
    cls=PaddockCommand,
    name="show",
    short_help="Show the facts of one model file.",
    examples=(
        "paddock models show cria",
        "paddock models show model.gguf --chat-template",
        "paddock models show --json model.gguf",
    ),
)
@click.argument("file", metavar="FILE|NAME", type=ModelReference())
@click.option("--chat-template", is_flag=True, help="Print the chat template, and nothing else without --json.")
@json_option
def show(file: str, chat_template: bool, as_json: bool) -> None:
    """Show what the header of a GGUF file says: architecture, weights, sizes, tokenizer, and how Paddock would run it.

    The file is checked on the way: one that is truncated, corrupt or of an unknown architecture is refused with the
    fault named. llama.cpp is not loaded, and no weights are read.

    With --json all facts; chat_template is true or false, and its text with --chat-template.
    """
    from paddock.cli.model_facts import show_model

    show_model(file, with_template=chat_template, as_json=as_json)


@models.command(
    cls=PaddockCommand,
    name="list",
    short_help="List the models that come with Paddock.",
    examples=("paddock models list", "paddock models list --json"),
)
@json_option
def list_models(as_json: bool) -> None:
    """List the models that can be named without a path.

    With --json: models, a list of objects with name, path and file_size (null where the file is missing).
    """
    from paddock.cli.model_facts import list_house_models

    list_house_models(as_json=as_json)
