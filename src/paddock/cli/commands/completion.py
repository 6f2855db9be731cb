"""``paddock completion``: scripts by which shells complete our commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from paddock.cli.command import PaddockCommand
from paddock.cli.output import write_text

__all__ = ["completion"]


@click.command(
    cls=PaddockCommand,
    short_help="Print the completion script of a shell.",
    examples=(
        'eval "$(paddock completion bash)"          # in ~/.bashrc',
        'eval "$(paddock completion zsh)"           # in ~/.zshrc, after compinit',
        "paddock completion fish | source           # in ~/.config/fish/config.fish",
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete commands, options, model names and files."""
    found = get_completion_class(shell)
    assert found is not None
    script = found(ctx.find_root().command, {}, "paddock", "_PADDOCK_COMPLETE")
    # Not script.source(): it starts a bash to ask for its version.
    write_text((script.source_template % script.source_vars()).strip() + "\n")
