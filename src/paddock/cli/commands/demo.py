"""``paddock demo``: many streams at once."""

from __future__ import annotations

from typing import Any

import click

from paddock.cli.command import PaddockCommand
from paddock.cli.options import json_option, load_options, log_options, model_option, set_up_log

__all__ = ["demo"]


@click.command(
    cls=PaddockCommand,
    short_help="Many streams at once from one supervised model.",
    examples=("paddock demo", "paddock demo --streams 16 --max-tokens 64", "paddock demo --json | jq .identical"),
)
@click.option(
    "--streams", type=click.IntRange(1, 256), default=8, show_default=True, metavar="N",
    help="How many requests run at once.",
)  # fmt: skip
@click.option(
    "-n", "--max-tokens", type=int, default=160, show_default=True, metavar="N", help="Longest reply, in tokens."
)
@click.option("-t", "--temperature", type=float, default=0.8, show_default=True, metavar="NUMBER",
    help="Divides the logits; 0 is greedy.",
)  # fmt: skip
@click.option(
    "-s", "--seed", type=int, default=7, show_default=True, metavar="N",
    help="Seed of the first stream; each further stream has the next one.",
)  # fmt: skip
@model_option
@json_option
@load_options
@log_options
def demo(**options: Any) -> None:
    """Let one model write N streams at once, side by side in the terminal; then run the same requests one after
    another, and compare every token.

    The summary says how fast both were, how many decode calls produced how many tokens (one call serves all running
    streams), and shows the supervision tree as it stood while the streams ran. Exit code 1 when a stream differs
    although the model runs under the canonical schedule.

    With --json: streams, identical, restarts, recovery_seconds, tokens_per_second, and more. This version's demo
    lets the worker live: restarts is 0 unless it died by itself, and recovery_seconds is null.
    """
    set_up_log(options)
    from paddock.cli.demonstration import demonstrate

    demonstrate(options)
