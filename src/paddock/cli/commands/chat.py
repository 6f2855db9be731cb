"""``paddock chat``: a conversation at the terminal."""

from __future__ import annotations

from typing import Any

import click

from paddock.cli.command import PaddockCommand
from paddock.cli.options import json_option, load_options, log_options, set_up_log
from paddock.cli.sampling_options import sampling_options
from paddock.cli.values import ModelReference

__all__ = ["chat"]


@click.command(
    cls=PaddockCommand,
    short_help="Talk to a model.",
    examples=(
        "paddock chat",
        'paddock chat cria --system "You tell very short stories." --temperature 0.3',
        "printf 'Hello\\nTell me a joke.\\n' | paddock chat --seed 7",
        "printf 'Hello\\n' | paddock chat --json --seed 7",
        "paddock chat --session diary",
    ),
)
@click.argument("model", default="cria", metavar="[MODEL]", type=ModelReference())
@click.option("--system", metavar="TEXT", help="A system message that stands before the conversation.")
@click.option(
    "--session", metavar="ID", help="Keep the conversation under this name, and go on with it where it was left."
)
@click.option("--tenant", metavar="NAME", help="Whose session it is; others do not see it.  [default: default]")
@json_option
@sampling_options
@load_options
@log_options
def chat(model: str, **options: Any) -> None:
    """Talk to MODEL (cria when none is named); its own chat template renders the conversation.

    Each line is a message. /help lists the commands: /reset, /system, /save, /quit. Ctrl-C during a reply cancels the
    reply; at the prompt it leaves with 130, and Ctrl-D leaves with 0. When stdin is no terminal, every line of it is
    one turn and Ctrl-C leaves at any time.

    With --session the conversation is kept, each turn when its reply is complete; the next "paddock chat --session" of
    that name goes on with it, exactly as if it had never been left. /reset forgets its turns for good.

    With --json: model, exactness, system, and turns, a list of objects with user, assistant, token_ids, finish_reason,
    seed and usage, printed at the end; a turn that failed has error in their place, and the exit code is 1. A session
    has its name in session, and in earlier_turns how many turns it had before.
    """
    set_up_log(options)
    from paddock.cli.chatting import converse

    converse(model, options)
