"""From a loaded model to its certificate: read from disk where it was made before, else by the probe."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import attrs

from paddock.errors import ExactnessNotProven
from paddock.native import library
from paddock.native.context import Context
from paddock.native.exactness.certificate import Certificate, ProbeOrder
from paddock.native.exactness.conversation import Rules
from paddock.native.exactness.probe import probe_context
from paddock.native.exactness.stored import certificate_path, read_certificate, write_certificate
from paddock.native.model import ModelLoadParameters, NativeModel

__all__ = ["certify", "parameters_of"]


def parameters_of(
    context: Context, loading: ModelLoadParameters, rules: Rules, environment: dict[str, str]
) -> dict[str, str]:
    """Everything that was set and that may change bits, as text."""
    values: dict[str, object] = attrs.asdict(context.parameters) | attrs.asdict(loading) | attrs.asdict(rules)
    values |= {name: value for name, value in environment.items() if name.startswith(("GGML_", "LLAMA_", "OMP_"))}
    return {name: str(value) for name, value in sorted(values.items())}


def certify(
    model: NativeModel,
    context: Context,
    loading: ModelLoadParameters,
    order: ProbeOrder,
    stopping: Callable[[], bool] = lambda: False,
) -> Certificate:
    """The certificate of ``model`` in ``context``, which serves nobody yet.

    The context itself is probed: a second one with the same parameters would take its memory twice. Blocks for
    ``order.seconds`` at most, or about as long as reading a small file where the certificate was made at an earlier
    load. Raises :class:`paddock.errors.ExactnessNotProven` where it is required and does not hold, and
    :class:`paddock.errors.BatchError` when llama.cpp fails.
    """
    rules = Rules(**order.rules)  # type: ignore[arg-type]
    build = library.build().fingerprint
    parameters = parameters_of(context, loading, rules, dict(os.environ))
    path: Path | None = None
    certificate: Certificate | None = None
    if order.folder:
        path = certificate_path(Path(order.folder), order.recipe, build, order.model, parameters, order.seconds)
        certificate = read_certificate(path)
    if certificate is None:
        found = probe_context(context, model.n_vocab, rules, seconds=order.seconds, stopping=stopping)
        certificate = Certificate(
            recipe=order.recipe,
            checks=found.checks,
            weights=dict(model.facts.matrix_types),
            parameters=parameters,
            build=build,
            model=order.model,
            thread_counts=found.thread_counts,
            seconds=found.seconds,
        )
        if path is not None and not stopping():
            write_certificate(path, certificate)
    if order.required and (shortfall := certificate.shortfall) is not None:
        what = {"failed": "failed", "not_run": "was not run"}.get(shortfall.outcome, shortfall.outcome)
        raise ExactnessNotProven(model.facts.name, order.recipe, shortfall.name, f"{what} ({shortfall.detail})")
    return certificate
