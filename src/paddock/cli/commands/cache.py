"""``paddock cache``: the KV blocks on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from paddock.cli.command import PaddockCommand
from paddock.cli.options import json_option
from paddock.cli.values import Amount

__all__ = ["cache"]

F = TypeVar("F", bound=Callable[..., Any])

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class _Size(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.3 only
    """A number of bytes, with K, M, G or T for powers of 1,024."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value).upper().removesuffix("B").removesuffix("I")
        number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS and text else (text, "")
        try:
            size = int(float(number) * _UNITS[unit])
        except (ValueError, OverflowError):
            size = -1
        if size < 0:
            raise click.BadParameter(f"{value!r} is no size, for example 500M or 2G", ctx, param)
        return size


class _Hex(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.3 only
    """The beginning of an identity's digest."""

    name = "digest"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value).lower()
        if not 4 <= len(text) <= 40 or text.strip("0123456789abcdef"):
            raise click.BadParameter(f"{value!r} is not 4 to 40 hexadecimal digits, as ls shows them", ctx, param)
        return text


def _folder_option(function: F) -> F:
    return click.option(
        "--cache-dir", metavar="DIR", type=click.Path(),
        help="The cache folder, as in RuntimeConfig.cache_dir.  [default: paddock in the user's cache folder]",
    )(function)  # fmt: skip


@click.group(short_help="Look after the KV blocks on disk.")
def cache() -> None:
    """Look after the KV blocks on disk, also while models use them. No model is loaded.

    Blocks are stored where RuntimeConfig.cache_dir says. They are removed by themselves when they exceed
    RuntimeConfig.disk_cache_bytes; these commands are for a look, a check, and for cleaning up earlier.
    """


@cache.command(
    cls=PaddockCommand,
    name="ls",
    short_help="List what the blocks belong to.",
    examples=("paddock cache ls", "paddock cache ls --json --cache-dir /srv/cache"),
)
@_folder_option
@json_option
def list_identities(cache_dir: str | None, as_json: bool) -> None:
    """List the identities that blocks are stored for, the last used first. An identity is a model under one build,
    context shape and recipe; blocks of different ones are never mixed.

    With --json: identities, a list of objects with identity, model, recipe, context, block_tokens, blocks, file_bytes,
    first_used and last_used (seconds since 1970).
    """
    from paddock.cli.cache_folder import show_identities

    show_identities(cache_dir, as_json=as_json)


@cache.command(
    cls=PaddockCommand,
    name="stat",
    short_help="Show how much is stored.",
    examples=("paddock cache stat", "paddock cache stat --json"),
)
@_folder_option
@json_option
def show_sums(cache_dir: str | None, as_json: bool) -> None:
    """Show how many blocks and bytes are stored, and since when.

    With --json: path, identities, blocks, file_bytes, temporary_files, first_used, last_used.
    """
    from paddock.cli.cache_folder import show_sums

    show_sums(cache_dir, as_json=as_json)


@cache.command(
    cls=PaddockCommand,
    name="verify",
    short_help="Read every block and check it.",
    examples=("paddock cache verify", "paddock cache verify --remove", "paddock cache verify --json"),
)
@_folder_option
@click.option("--remove", is_flag=True, help="Remove the blocks that are not what they should be.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@json_option
def verify(cache_dir: str | None, remove: bool, quiet: bool, as_json: bool) -> None:
    """Read every block whole and check it as it is checked before a model gets it. Each bad one is named; the exit
    code is 1 when there are any that were not removed. Nothing bad is ever used, with or without this command.

    With --json: checked, file_bytes, bad (a list of path, fault and problem), removed, seconds.
    """
    from paddock.cli.cache_folder import verify_blocks

    if not verify_blocks(cache_dir, remove=remove, quiet=quiet, as_json=as_json):
        click.get_current_context().exit(1)


@cache.command(
    cls=PaddockCommand,
    name="gc",
    short_help="Remove leftovers, and blocks on request.",
    examples=(
        "paddock cache gc",
        "paddock cache gc --max-bytes 2G",
        "paddock cache gc --unused-days 30 --dry-run",
        "paddock cache gc --identity 3fa9",
    ),
)
@_folder_option
@click.option("--max-bytes", type=_Size(), help="Remove blocks, those unused for longest first, down to this size.")
@click.option("--unused-days", type=Amount(min=0), metavar="DAYS", help="Remove blocks unused for so long.")
@click.option("--identity", type=_Hex(), help="Remove all blocks of the identities whose digest begins so.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@json_option
def collect(
    cache_dir: str | None,
    max_bytes: int | None,
    unused_days: float | None,
    identity: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Remove temporary files that dead processes left, and empty folders. With options also blocks; a model that
    wanted one of them computes it again. Files of running processes are left alone. The exit code is 1 when a file
    could not be removed.

    With --json: removed_blocks, removed_bytes, removed_temporary_files, left_blocks, left_bytes, failed, dry_run.
    """
    from paddock.cli.cache_folder import collect_garbage

    if not collect_garbage(
        cache_dir, max_bytes=max_bytes, unused_days=unused_days, identity=identity, dry_run=dry_run, as_json=as_json
    ):
        click.get_current_context().exit(1)
