"""The command line. Importing it is quick: what a command needs to run is imported when it runs."""

from __future__ import annotations

import click

from paddock import __version__
from paddock.cli.commands.cache import cache
from paddock.cli.commands.chat import chat
from paddock.cli.commands.completion import completion
from paddock.cli.commands.demo import demo
from paddock.cli.commands.models import models
from paddock.cli.commands.probe import probe
from paddock.cli.commands.run import run
from paddock.cli.commands.tree import tree
from paddock.cli.program import Program

__all__ = ["main"]


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 130 ended by Ctrl-C, 143 by SIGTERM. "
    "Results go to stdout, everything else to stderr. `paddock COMMAND --help` has examples.",
)
@click.version_option(__version__, "-V", "--version", prog_name="paddock", message="%(prog)s %(version)s")
def main() -> None:
    """Runs local language models, supervised. `paddock demo` shows it; `paddock chat` talks to the small model that
    comes along, named cria; any GGUF file does as well."""


for _command in (demo, run, chat, tree, probe, models, cache, completion):
    main.add_command(_command)
