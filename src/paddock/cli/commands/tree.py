"""``paddock tree``: the supervision tree."""

from __future__ import annotations

from typing import Any

import click

from paddock.cli.command import PaddockCommand
from paddock.cli.options import json_option, load_options, log_options, set_up_log
from paddock.cli.values import ModelReference

__all__ = ["tree"]


@click.command(
    cls=PaddockCommand,
    short_help="Show the supervision tree of loaded models.",
    examples=("paddock tree", "paddock tree cria model.gguf", "paddock tree --json cria"),
)
@click.argument("models", nargs=-1, metavar="[MODEL]...", type=ModelReference())
@json_option
@load_options
@log_options
def tree(models: tuple[str, ...], **options: Any) -> None:
    """Load each MODEL (cria when none is named), show the supervision tree with the state of every process and each
    model's statistics, and stop again.

    The tree is that of this command's own runtime: looking into another running process is not possible in this
    version.

    With --json: tree (id, type, status, children) and models, an object from model name to statistics.
    """
    set_up_log(options)
    from paddock.cli.tree_view import show_tree

    show_tree(models or ("cria",), options)
