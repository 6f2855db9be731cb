"""Looking after a cache folder from outside: what is in it, whether it is whole, what can go. Blocking.

All of it works while other processes use the folder: what they write or remove meanwhile is counted or not, and nothing
that is removed here is more to them than a miss.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import attrs

from paddock.cache.folder import ScannedFile, discard, exclusive, read_block, remove_leftovers, scan
from paddock.errors import BlockRefused, CacheFolderUnusable

__all__ = [
    "BadBlock",
    "Collected",
    "FolderFacts",
    "IdentityFacts",
    "collect",
    "folder_facts",
    "identity_facts",
    "list_files",
    "verify",
]

_MAX_DESCRIPTION_BYTES = 1 << 16


@attrs.frozen
class IdentityFacts:
    """The blocks of one identity. Texts are empty where the folder does not say."""

    identity: str
    model: str
    recipe: str
    context: str
    block_tokens: int
    blocks: int
    file_bytes: int
    first_used: float
    """Seconds since 1970; so is ``last_used``."""
    last_used: float


@attrs.frozen
class FolderFacts:
    """A whole cache folder. Times are seconds since 1970, None where there is no block."""

    path: str
    identities: int
    blocks: int
    file_bytes: int
    temporary_files: int
    """Files that are being written, or were when a process died."""
    first_used: float | None
    last_used: float | None


@attrs.frozen
class BadBlock:
    """A block that is not what its name says; ``fault`` is one word."""

    path: str
    fault: str
    problem: str


@attrs.frozen
class Collected:
    """What a clean-up has removed and left; under ``dry_run`` what it would have."""

    removed_blocks: int
    removed_bytes: int
    removed_temporary_files: int
    left_blocks: int
    left_bytes: int
    failed: int
    """Files that could not be removed."""
    dry_run: bool


def list_files(path: Path) -> list[ScannedFile]:
    """All blocks of a folder. Raises CacheFolderUnusable where it is none or cannot be read."""
    try:
        return [file for part in scan(path) for file in part]
    except OSError as error:
        raise CacheFolderUnusable(path, error.strerror or str(error)) from error


def folder_facts(path: Path, files: Sequence[ScannedFile]) -> FolderFacts:
    """Sums over a folder's blocks, from :func:`list_files`."""
    try:
        temporary = sum(name.endswith(".tmp") for name in os.listdir(path / "temporary"))
    except OSError:
        temporary = 0
    used = [file.used_ns / 1e9 for file in files]
    return FolderFacts(
        path=str(path),
        identities=len({file.identity for file in files}),
        blocks=len(files),
        file_bytes=sum(file.file_bytes for file in files),
        temporary_files=temporary,
        first_used=min(used, default=None),
        last_used=max(used, default=None),
    )


def identity_facts(path: Path, files: Iterable[ScannedFile]) -> list[IdentityFacts]:
    """The same for each identity, the last used first."""
    groups: dict[str, list[ScannedFile]] = {}
    for file in files:
        groups.setdefault(file.identity, []).append(file)
    facts = [_identity_facts(path, identity, group) for identity, group in groups.items()]
    return sorted(facts, key=lambda entry: -entry.last_used)


def _identity_facts(path: Path, identity: str, files: Sequence[ScannedFile]) -> IdentityFacts:
    described = _description(path / "blocks" / identity / "identity.json")
    tokens = described.get("block_tokens")
    return IdentityFacts(
        identity=identity,
        model=str(described.get("model", "")),
        recipe=str(described.get("recipe", "")),
        context=str(described.get("context", "")),
        block_tokens=tokens if isinstance(tokens, int) else 0,
        blocks=len(files),
        file_bytes=sum(file.file_bytes for file in files),
        first_used=min(file.used_ns for file in files) / 1e9,
        last_used=max(file.used_ns for file in files) / 1e9,
    )


def _description(path: Path) -> dict[str, object]:
    try:
        with open(path, "rb") as file:
            described = json.loads(file.read(_MAX_DESCRIPTION_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return described if isinstance(described, dict) else {}


def verify(path: Path, files: Iterable[ScannedFile], *, remove: bool = False) -> Iterator[BadBlock | None]:
    """Reads every block whole and checks it; for each a :class:`BadBlock`, or None for one that is whole or gone.

    With ``remove`` bad blocks are removed at once.
    """
    for file in files:
        name = file.key.hex()
        block = path / "blocks" / file.identity / name[:2] / f"{name}.kv"
        try:
            read_block(block, file.identity, file.key, None)
        except FileNotFoundError:
            yield None
            continue
        except BlockRefused as refused:
            bad = BadBlock(str(block), refused.fault, refused.problem)
        except OSError as error:
            bad = BadBlock(str(block), "io", error.strerror or str(error))
        else:
            yield None
            continue
        if remove:
            try:
                discard(block)
            except OSError as error:
                bad = attrs.evolve(bad, problem=f"{bad.problem}; it cannot be removed: {error.strerror or error}")
        yield bad


def collect(
    path: Path,
    *,
    max_bytes: int | None = None,
    unused_since: float | None = None,
    identity: str | None = None,
    dry_run: bool = False,
) -> Collected:
    """Cleans up: removes what dead processes left, then blocks.

    ``identity``: all blocks of the identities whose hexadecimal digest begins so. ``unused_since``: blocks last used
    before this time (seconds since 1970). ``max_bytes``: of what is left then, those unused for longest, until no more
    bytes than that are left. One clean-up of a folder runs at a time, a second one waits. Raises CacheFolderUnusable.
    """
    files = sorted(list_files(path), key=lambda file: file.used_ns)
    chosen = [
        file
        for file in files
        if (identity is not None and file.identity.startswith(identity))
        or (unused_since is not None and file.used_ns < unused_since * 1e9)
    ]
    kept = sorted(set(files) - set(chosen), key=lambda file: file.used_ns)
    excess = sum(file.file_bytes for file in kept) - max_bytes if max_bytes is not None else 0
    for file in kept:
        if excess <= 0:
            break
        chosen.append(file)
        excess -= file.file_bytes
    if dry_run:
        return _collected(files, chosen, 0, 0, dry_run=True)
    try:
        with exclusive(path):
            leftovers = remove_leftovers(path)
            removed = [file for file in chosen if _remove(path, file)]
            _remove_empty_folders(path / "blocks")
    except OSError as error:
        raise CacheFolderUnusable(path, error.strerror or str(error)) from error
    return _collected(files, removed, leftovers, len(chosen) - len(removed), dry_run=False)


def _collected(
    files: Sequence[ScannedFile], removed: Sequence[ScannedFile], leftovers: int, failed: int, *, dry_run: bool
) -> Collected:
    removed_bytes = sum(file.file_bytes for file in removed)
    return Collected(
        removed_blocks=len(removed),
        removed_bytes=removed_bytes,
        removed_temporary_files=leftovers,
        left_blocks=len(files) - len(removed),
        left_bytes=sum(file.file_bytes for file in files) - removed_bytes,
        failed=failed,
        dry_run=dry_run,
    )


def _remove(path: Path, file: ScannedFile) -> bool:
    name = file.key.hex()
    try:
        discard(path / "blocks" / file.identity / name[:2] / f"{name}.kv")
    except OSError:
        return False
    return True


def _remove_empty_folders(blocks: Path) -> None:
    """A writer that loses its folder this way makes it again, or fails once and is asked again."""
    for identity in list(blocks.iterdir()):
        if not identity.is_dir():
            continue
        for folder in list(identity.iterdir()):
            _remove_folder(folder)
        if [entry.name for entry in identity.iterdir()] == ["identity.json"]:
            discard(identity / "identity.json")
        _remove_folder(identity)


def _remove_folder(folder: Path) -> None:
    try:
        os.rmdir(folder)
    except OSError:
        pass  # not empty, or no folder
