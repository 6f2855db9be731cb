"""``paddock models``: what is known of model files."""

from __future__ import annotations

from typing import Any

import click

from paddock.cli.command import PaddockCommand
from paddock.cli.options import json_option
from paddock.cli.values import ModelReference

__all__ = ["FILE_TYPES", "models"]

FILE_TYPES = (
    "F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q2_K_S", "Q3_K_S", "Q3_K_M", "Q3_K_L",
    "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "IQ4_NL", "IQ4_XS", "IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M", "TQ1_0",
    "TQ2_0",
)  # fmt: skip
"""Those of ``paddock.native.quantize``, which is not imported for the help."""


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
    name="quantize",
    short_help="Write a model with smaller weights.",
    examples=(
        "paddock models quantize model-f16.gguf Q8_0",
        "paddock models quantize model-f16.gguf Q4_K_M small.gguf --threads 4",
        "paddock models quantize --requantize --force --json model-q8_0.gguf Q4_0 model-q4_0.gguf",
    ),
)
@click.argument("source", metavar="SRC", type=ModelReference())
@click.argument("file_type", metavar="TYPE", type=click.Choice(FILE_TYPES, case_sensitive=False))
@click.argument("target", metavar="[DST]", required=False, type=click.Path())
@click.option("--force", is_flag=True, help="Replace DST where it is there already.")
@click.option("--requantize", is_flag=True, help="Allow a source that is quantized already, which loses quality twice.")
@click.option("--pure", is_flag=True, help="All matrices in that one type, where a mixture would be used.")
@click.option("--threads", type=click.IntRange(1, 512), metavar="N", help="Threads that compute.  [default: all CPUs]")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@json_option
def quantize(source: str, file_type: str, target: str | None, **options: Any) -> None:
    """Write the model SRC with its weights in TYPE to DST; by default to a file in the current folder, named after SRC
    and TYPE.

    llama.cpp does it, in a process of its own. DST is complete or not there: it is written under a temporary name and
    renamed. Only types that need no importance matrix are offered:

    F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q2_K_S Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M Q6_K IQ4_NL
    IQ4_XS IQ3_XXS IQ3_XS IQ3_S IQ3_M TQ1_0 TQ2_0

    With --json: source, path, type, source_size, file_size, weights (tensors by type).
    """
    from paddock.cli.quantizing import quantize as run

    run(source, file_type, target, options)


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
