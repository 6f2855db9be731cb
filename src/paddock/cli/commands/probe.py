"""``paddock probe``: is this model exact on this machine, and what does that cost?"""

from __future__ import annotations

from typing import Any

import click

from paddock.cli.command import PaddockCommand, SectionOption
from paddock.cli.options import json_option, load_options, log_options, set_up_log
from paddock.cli.values import Amount, ModelReference

__all__ = ["probe"]


@click.command(
    cls=PaddockCommand,
    short_help="Find out whether a model is exact, and what that costs.",
    examples=(
        "paddock probe cria",
        "paddock probe model.gguf --cost-seconds 0",
        "paddock probe --json --threads 4 --exactness-recipe invariant model.gguf",
    ),
)
@click.argument("model", metavar="MODEL", default="cria", type=ModelReference())
@click.option(
    "--cost-seconds", type=Amount(0.0, 3600.0), default=30.0, show_default=True, metavar="SECONDS",
    cls=SectionOption, section="Measuring",
    help="About how long to measure speeds, beyond loading and probing; 0 measures none.",
)  # fmt: skip
@json_option
@load_options
@log_options
def probe(model: str, **options: Any) -> int:
    """Compute a short conversation in every way on which a recipe claims that replies do not depend (beside others that
    come and go, in other chunks, in another sequence, saved and restored, with another number of threads) and compare
    logits and KV cells byte by byte; for both recipes. Then measure the fastest settings and each recipe side by side.

    The probe is run anew, whatever an earlier load found. Progress goes to stderr. The exit code is 1 where the recipe
    of --exactness-recipe does not hold.

    With --json: certificate (recipe, holds, tokens, thread_counts, model, build, parameters, seconds), checks (outcome,
    tokens and detail by name), weights, recipes (holds, checks and problem of each), cost (unit, threads, points: kind,
    rows, depth, and the speed by recipe).
    """
    set_up_log(options)
    from paddock.cli.probing import probe_model

    return probe_model(model, options)
