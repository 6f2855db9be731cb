"""What ``paddock probe`` does: certificates of both recipes, and what each of them costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trio

from paddock.cli.failures import FAILED
from paddock.cli.interrupts import Interrupts, run_interruptible
from paddock.cli.loading import model_config
from paddock.cli.output import note, write_json, write_text
from paddock.engine.caching.fingerprint import fingerprint_of
from paddock.engine.measuring import RECIPES, CostPoint, ProbeReport, measure_recipes
from paddock.models import facts_of, read_header, resolve
from paddock.native.exactness.certificate import Certificate

__all__ = ["probe_model", "report_lines", "report_object"]


def probe_model(source: str, options: Mapping[str, Any]) -> int:
    """Probes, measures, prints. Returns the exit code: 1 where the configured recipe does not hold."""
    config = model_config(source, options)
    quiet = bool(options.get("quiet"))

    async def work(_: Interrupts) -> ProbeReport:
        facts = await trio.to_thread.run_sync(lambda: facts_of(read_header(resolve(source))), abandon_on_cancel=True)
        fingerprint = await trio.to_thread.run_sync(fingerprint_of, facts.path, abandon_on_cancel=True)
        seconds = float(options.get("cost_seconds") or 0.0)
        return await measure_recipes(
            config, facts, fingerprint, seconds=seconds, note=(lambda _: None) if quiet else note
        )

    report = run_interruptible(work)
    if options.get("as_json"):
        write_json(report_object(report, config.exactness_recipe))
    else:
        write_text("".join(f"{line}\n" for line in report_lines(report)))
    certificate = report.certificates.get(config.exactness_recipe)
    return 0 if certificate is not None and certificate.holds else FAILED


def report_object(report: ProbeReport, recipe: str) -> dict[str, object]:
    """As documented for ``--json``; ``recipe`` is the one whose certificate stands first."""
    certificate = report.certificates.get(recipe)
    return {
        "certificate": None if certificate is None else _certificate_object(certificate),
        "checks": {} if certificate is None else _checks_object(certificate),
        "weights": dict(report.facts.matrix_types),
        "recipes": {
            name: {
                "holds": found.holds if (found := report.certificates.get(name)) is not None else False,
                "checks": {} if found is None else _checks_object(found),
                "problem": report.problems.get(name),
            }
            for name in RECIPES
            if name != "fast"
        },
        "cost": {
            "unit": "tokens/s",
            "threads": report.n_threads,
            "points": [
                {"kind": p.kind, "rows": p.rows, "depth": p.depth, **dict(p.tokens_per_second)} for p in report.cost
            ],
        },
    }


def _certificate_object(certificate: Certificate) -> dict[str, object]:
    return {
        "recipe": certificate.recipe,
        "holds": certificate.holds,
        "tokens": certificate.tokens,
        "thread_counts": list(certificate.thread_counts),
        "model": certificate.model,
        "build": certificate.build,
        "parameters": dict(certificate.parameters),
        "seconds": round(certificate.seconds, 3),
    }


def _checks_object(certificate: Certificate) -> dict[str, object]:
    return {
        check.name: {"outcome": check.outcome, "tokens": check.tokens, "detail": check.detail or None}
        for check in certificate.checks
    }


def report_lines(report: ProbeReport) -> list[str]:
    """The same for people."""
    weights = ", ".join(f"{count} {kind}" for kind, count in sorted(report.facts.matrix_types.items()))
    lines = [f"model      {report.facts.name}", f"weights    {weights}", f"threads    {report.n_threads}"]
    for name in RECIPES:
        if name in report.problems:
            lines += ["", f"{name}: {report.problems[name]}"]
        certificate = report.certificates.get(name)
        if certificate is None:
            continue
        verdict = "holds" if certificate.holds else "does not hold"
        lines += ["", f"{name}: the certificate {verdict} ({certificate.seconds:.1f} s)"]
        for check in certificate.checks:
            reached = f"to {check.tokens} tokens" if check.outcome == "passed" else check.detail
            lines.append(f"  {check.name:<16} {check.outcome.replace('_', ' '):<15} {reached}")
    return [*lines, *_cost_lines(report.cost)]


def _cost_lines(points: tuple[CostPoint, ...]) -> list[str]:
    if not points:
        return []
    names = [name for name in RECIPES if any(name in point.tokens_per_second for point in points)]
    lines = ["", "tokens a second" + " " * 20 + "".join(f"{name:>18}" for name in names)]
    for point in points:
        what = f"{point.rows} tokens of prompt" if point.kind == "prefill" else f"{point.rows} at once"
        fast = point.tokens_per_second.get("fast")
        cells = []
        for name in names:
            speed = point.tokens_per_second.get(name)
            share = f" ({speed / fast:4.0%})" if speed is not None and fast and name != "fast" else ""
            cells.append(f"{'-' if speed is None else f'{speed:.0f}{share}':>18}")
        lines.append(f"  {what:<22}{f'at {point.depth}':<11}" + "".join(cells))
    return lines
