"""``python -m paddock.native.exactness.measuring``: a process that loads one model under one recipe and measures it.

llama.cpp reads its environment once, so each recipe needs a process of its own; and what llama.cpp aborts on ends this
process alone. Orders come as JSON, a line each, on stdin: first a :class:`Setup`, then any number of
:class:`Measure`. Each is answered by a line on stdout. The end of stdin ends the process.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import msgspec
import structlog

from paddock.errors import PaddockError
from paddock.native.context import Context
from paddock.native.exactness.certificate import Certificate, ProbeOrder
from paddock.native.exactness.certify import certify
from paddock.native.exactness.conversation import Rules
from paddock.native.exactness.cost import CostMeter
from paddock.native.model import ModelLoadParameters, NativeModel

__all__ = ["Answer", "Measure", "Setup", "main"]


class Setup(msgspec.Struct, frozen=True):
    """``probe``: what is to be certified, None for nothing; ``probed`` are the parameters of the context for that,
    ``measured`` those of the context for the measurements."""

    path: str
    model: dict[str, Any]
    probed: dict[str, Any]
    measured: dict[str, Any]
    rules: dict[str, bool | int | None]
    probe: ProbeOrder | None = None


class Measure(msgspec.Struct, frozen=True):
    """``rows`` generated at once, or, where it is 0, a prompt of ``n_tokens``; behind ``depth`` tokens."""

    rows: int
    n_tokens: int
    depth: int


class Answer(msgspec.Struct, frozen=True):
    """``error`` says why there is nothing else."""

    certificate: Certificate | None = None
    tokens_per_second: float = 0.0
    error: str = ""


def main() -> None:
    """Runs until the end of stdin."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    setup = msgspec.json.decode(sys.stdin.readline(), type=Setup)
    try:
        loading = ModelLoadParameters(**setup.model)
        model = NativeModel.load(Path(setup.path), loading)
        certificate: Certificate | None = None
        if setup.probe is not None:
            context = Context.create(model, setup.probed)
            certificate = certify(model, context, loading, setup.probe)
            context.free()
        context = Context.create(model, setup.measured)
        meter = CostMeter(context, model.n_vocab, Rules(**setup.rules))  # type: ignore[arg-type]
    except PaddockError as error:
        _answer(Answer(error=str(error)))
        return
    _answer(Answer(certificate))
    for line in sys.stdin:
        order = msgspec.json.decode(line, type=Measure)
        try:
            speed = meter.decode(order.rows, order.depth) if order.rows else meter.prefill(order.n_tokens, order.depth)
        except PaddockError as error:
            _answer(Answer(error=str(error)))
        else:
            _answer(Answer(tokens_per_second=speed))
    context.free()
    model.free()


def _answer(answer: Answer) -> None:
    sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
