"""What ``paddock cache`` does: the disk folder of KV blocks, seen from outside."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import click

from paddock.cache.folder import ScannedFile
from paddock.cache.maintenance import BadBlock, Collected, collect, folder_facts, identity_facts, list_files, verify
from paddock.cli.output import write_json, write_text
from paddock.cli.plain import plain
from paddock.config import user_cache_dir

__all__ = ["collect_garbage", "show_identities", "show_sums", "verify_blocks"]

_DAY_SECONDS = 86_400.0


def _folder(cache_dir: str | None) -> Path:
    return user_cache_dir() if cache_dir is None else Path(cache_dir)


def show_identities(cache_dir: str | None, *, as_json: bool) -> None:
    """Prints a line for each identity. Raises CacheFolderUnusable."""
    path = _folder(cache_dir)
    facts = identity_facts(path, list_files(path))
    if as_json:
        write_json({"identities": facts})
        return
    for entry in facts:
        model = entry.model or "(not described)"
        write_text(
            f"{entry.identity[:12]}  {entry.blocks:>7} blocks  {_bytes(entry.file_bytes):>10}  "
            f"{_when(entry.last_used)}  {model}  {entry.recipe}\n"
        )


def show_sums(cache_dir: str | None, *, as_json: bool) -> None:
    """Prints sums over a folder. Raises CacheFolderUnusable."""
    path = _folder(cache_dir)
    facts = folder_facts(path, list_files(path))
    if as_json:
        write_json(facts)
        return
    lines = {
        "folder": facts.path,
        "identities": facts.identities,
        "blocks": facts.blocks,
        "size": f"{_bytes(facts.file_bytes)} ({facts.file_bytes} bytes)",
        "being written": f"{facts.temporary_files} files",
        "first used": _when(facts.first_used),
        "last used": _when(facts.last_used),
    }
    write_text("".join(f"{name:<16} {value}\n" for name, value in lines.items()))


def verify_blocks(cache_dir: str | None, *, remove: bool, quiet: bool, as_json: bool) -> bool:
    """Checks every block; whether none is bad, or none is left. Raises CacheFolderUnusable."""
    path = _folder(cache_dir)
    files = list_files(path)
    began = time.monotonic()
    bad: list[BadBlock] = []
    with _progress(files, quiet=quiet) as watched:
        for found in verify(path, watched, remove=remove):
            if found is not None:
                bad.append(found)
                if not as_json:
                    write_text(f"{found.path}: {found.fault}: {found.problem}\n")
    left = [block for block in bad if Path(block.path).exists()] if remove else bad
    sizes = sum(file.file_bytes for file in files)
    if as_json:
        write_json(
            {
                "checked": len(files),
                "file_bytes": sizes,
                "bad": bad,
                "removed": len(bad) - len(left),
                "seconds": time.monotonic() - began,
            }
        )
    else:
        write_text(f"{len(files)} blocks of {_bytes(sizes)} checked, {len(bad)} bad, {len(bad) - len(left)} removed\n")
    return not left


@contextmanager
def _progress(files: list[ScannedFile], *, quiet: bool) -> Iterator[Any]:
    """The files as they are taken, with a bar on stderr where that is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield files
        return
    with click.progressbar(files, label="Checking blocks", file=sys.stderr) as bar:
        yield bar


def collect_garbage(
    cache_dir: str | None,
    *,
    max_bytes: int | None,
    unused_days: float | None,
    identity: str | None,
    dry_run: bool,
    as_json: bool,
) -> bool:
    """Cleans up; whether all that was to go could be removed. Raises CacheFolderUnusable."""
    since = None if unused_days is None else time.time() - unused_days * _DAY_SECONDS
    done = collect(_folder(cache_dir), max_bytes=max_bytes, unused_since=since, identity=identity, dry_run=dry_run)
    if as_json:
        write_json(plain(attrs.asdict(done)))
    else:
        write_text(_told(done))
    return done.failed == 0


def _told(done: Collected) -> str:
    failed = f", {done.failed} could not be removed" if done.failed else ""
    return (
        f"{'would remove' if done.dry_run else 'removed'} {done.removed_blocks} blocks of {_bytes(done.removed_bytes)} "
        f"and {done.removed_temporary_files} temporary files{failed}; "
        f"{done.left_blocks} blocks of {_bytes(done.left_bytes)} {'would be' if done.dry_run else 'are'} left\n"
    )


def _when(seconds: float | None) -> str:
    return "never" if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _bytes(size: int) -> str:
    value, units = float(size), iter(("B", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while value >= 1024 and unit != "TiB":
        value, unit = value / 1024, next(units)
    return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
