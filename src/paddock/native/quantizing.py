"""``python -m paddock.native.quantizing SOURCE TARGET TYPE THREADS REQUANTIZE PURE``: quantizes one file.

A process of its own, since llama.cpp may abort. Prints one JSON object a line: ``{"done": 3, "of": 39}`` for each
tensor, and at the end ``{"error": null}`` or why it failed.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from pathlib import Path

import structlog

from paddock.errors import PaddockError, QuantizationFailed
from paddock.native.quantize import quantize_model

__all__ = ["main"]

_TENSOR = re.compile(r"^\[\s*(\d+)/\s*(\d+)\]")


def main() -> None:
    """Arguments as in the module's description; the last two are 0 or 1."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    source, target, file_type, threads, requantize, pure = sys.argv[1:]
    problem: str | None = None
    try:
        quantize_model(
            Path(source),
            Path(target),
            file_type,
            n_threads=int(threads),
            requantize=requantize == "1",
            pure=pure == "1",
            log=_report,
        )
    except QuantizationFailed as error:
        problem = error.reason
    except PaddockError as error:
        problem = str(error)
    _print({"error": problem})


def _report(line: str) -> None:
    if found := _TENSOR.match(line):
        _print({"done": int(found[1]), "of": int(found[2])})


def _print(value: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
