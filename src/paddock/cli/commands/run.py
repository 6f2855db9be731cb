"""``paddock run``: one prompt, one completion."""

from __future__ import annotations

from typing import Any

import click

from paddock.cli.command import PaddockCommand, SectionOption
from paddock.cli.options import json_option, load_options, log_options, model_option, set_up_log
from paddock.cli.prompts import prompt_from
from paddock.cli.sampling_options import sampling_options

__all__ = ["run"]


@click.command(
    cls=PaddockCommand,
    short_help="Complete one prompt.",
    examples=(
        'paddock run "Once upon a time"',
        'paddock run --model cria --max-tokens 32 --temperature 0.8 --seed 7 --json "Once upon a time"',
        "echo 'A llama' | paddock run --stop . --stop '!'",
        "paddock run -m model.gguf -n 200 --deadline 30 - < prompt.txt",
        "paddock run --logit-bias 42=-inf --logit-bias 7=2.5 --top-k 0 --min-p 0.1 Hello",
    ),
)
@click.argument("prompt", required=False)
@model_option
@json_option
@click.option(
    "--deadline", type=float, metavar="SECONDS", cls=SectionOption, section="Sampling",
    help="The request ends with DeadlineExceeded when it is not done after so many seconds.  [default: none]",
)  # fmt: skip
@sampling_options
@click.option(
    "--no-add-special", is_flag=True, cls=SectionOption, section="Prompt",
    help="Do not put the model's begin-of-text token before the prompt.",
)  # fmt: skip
@click.option(
    "--parse-special", is_flag=True, cls=SectionOption, section="Prompt",
    help="Read special tokens in the prompt, such as <|im_start|>, as tokens and not as text.",
)  # fmt: skip
@load_options
@log_options
def run(prompt: str | None, **options: Any) -> None:
    """Complete PROMPT with a model: the text streams to stdout as it comes, and a summary follows on stderr.

    PROMPT may be - for stdin, and is read from there as well when it is left out and stdin is no terminal; one line end
    at the end of stdin is not part of the prompt. The prompt is taken as it is, without a chat template (that is what
    `paddock chat` is for).

    With --json: text, token_ids, finish_reason (stop or length), seed, usage (prompt_tokens, cached_tokens,
    completion_tokens), exactness (canonical, unproven or off), and logprobs when asked for. The same command with the
    same seed prints the same object.

    Ctrl-C cancels the request and ends with 130.
    """
    text = prompt_from(prompt)
    set_up_log(options)
    from paddock.cli.completing import complete_once

    complete_once(text, options)
