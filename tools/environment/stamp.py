"""The stamp inside a finished environment: what it was made from, so that the next set-up is a comparison."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

FORMAT = 1
STAMP_NAME = "paddock-setup.json"


@dataclass(frozen=True)
class Stamp:
    """All that decides whether a finished environment is still the one that is wanted."""

    location: str  # scripts in an environment hold its path: one that was moved is broken
    requirements: str  # digest, see requirements_digest
    extras: tuple[str, ...]  # sorted
    llama_build: str  # key of the llama.cpp build, see llama_wheel.build_key


def requirements_digest(project: Mapping[str, Any]) -> str:
    """Digest of what of ``pyproject.toml`` reaches an installation; tool settings do not."""
    table = project["project"]
    parts = {
        "build-system": project.get("build-system"),
        "hatch": project.get("tool", {}).get("hatch"),
        **{
            key: table.get(key)
            for key in (
                "name",
                "version",
                "requires-python",
                "dependencies",
                "optional-dependencies",
                "scripts",
            )
        },
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def satisfies(found: Stamp | None, wanted: Stamp) -> bool:
    """Whether what is stamped ``found`` serves where ``wanted`` is asked for; more extras do no harm."""
    if found is None or not set(wanted.extras) <= set(found.extras):
        return False
    return replace(found, extras=wanted.extras) == wanted


def with_extras_of(wanted: Stamp, found: Stamp | None) -> Stamp:
    """``wanted``, and the extras that are there already: ``make demo`` must not undo ``make test``."""
    return replace(wanted, extras=tuple(sorted({*wanted.extras, *(found.extras if found else ())})))


def read_stamp(environment: Path) -> Stamp | None:
    """The environment's stamp; None when it has none, or one that this version does not understand."""
    try:
        content = json.loads((environment / STAMP_NAME).read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            return None
        return Stamp(**{**content, "extras": tuple(content["extras"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_stamp(environment: Path, stamp: Stamp) -> None:
    """Stamp the environment as finished, in one step: a stamp is never half written."""
    partial = environment / f"{STAMP_NAME}.{os.getpid()}"
    partial.write_text(json.dumps({"format": FORMAT, **asdict(stamp)}, indent=2) + "\n", encoding="utf-8")
    partial.replace(environment / STAMP_NAME)


def remove_stamp(environment: Path) -> None:
    """An environment that is being changed is not finished."""
    (environment / STAMP_NAME).unlink(missing_ok=True)
