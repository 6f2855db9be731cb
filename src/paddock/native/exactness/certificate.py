"""The certificate: what the probe of one loaded model found out. Values only; they cross the worker's border."""

from __future__ import annotations

from typing import Literal

import attrs

__all__ = ["INFORMATIVE", "Certificate", "CheckResult", "Outcome", "ProbeOrder"]

Outcome = Literal["passed", "failed", "not_run", "not_applicable"]

INFORMATIVE = frozenset({"threads"})
"""Checks whose failure narrows what a certificate says and does not void it: threads are set when a context is made."""


@attrs.frozen
class CheckResult:
    """One variant of the probe's prompt, compared with the prompt computed alone.

    ``tokens`` is the longest context for which the logits were the same bytes (or, of a failure, where they were
    not). ``detail`` says what differed first, or why the check was not run.
    """

    name: str
    outcome: Outcome
    tokens: int = 0
    detail: str = ""


@attrs.frozen(kw_only=True)
class Certificate:
    """What holds for one model, one library build and one set of parameters.

    ``weights`` counts the model's matrices by ggml type. ``parameters`` are those of the context and of the schedule,
    with llama.cpp's environment variables. ``build`` and ``model`` are fingerprints. ``thread_counts`` are the numbers
    of threads that were seen to give the same bytes. ``seconds`` is what the probe took; ``stored`` says that this
    certificate was made at an earlier load and read from disk.
    """

    recipe: str
    checks: tuple[CheckResult, ...]
    weights: dict[str, int]
    parameters: dict[str, str]
    build: str
    model: str
    thread_counts: tuple[int, ...]
    seconds: float
    stored: bool = False

    @property
    def holds(self) -> bool:
        """Whether every check that the recipe stands on was run and passed."""
        return self.shortfall is None

    @property
    def shortfall(self) -> CheckResult | None:
        """The check that keeps the certificate from holding: one that failed before one that was not run."""
        lacking = [
            check for check in self.checks
            if check.name not in INFORMATIVE and check.outcome not in ("passed", "not_applicable")
        ]  # fmt: skip
        return next((check for check in lacking if check.outcome == "failed"), lacking[0] if lacking else None)

    @property
    def tokens(self) -> int:
        """The longest context for which every check that the recipe stands on passed."""
        passed = [c.tokens for c in self.checks if c.name not in INFORMATIVE and c.outcome == "passed"]
        return min(passed, default=0)

    @property
    def threads_matter(self) -> bool:
        """Whether another number of threads was seen to give other bytes."""
        return any(check.name == "threads" and check.outcome == "failed" for check in self.checks)


@attrs.frozen(kw_only=True)
class ProbeOrder:
    """What the worker is asked to find out when a model has been loaded.

    ``rules`` are the arguments of :class:`paddock.native.exactness.conversation.Rules`. ``seconds`` bounds the probe.
    ``required``: a certificate that does not hold is a reason to refuse the model. ``model`` is a fingerprint of the
    file's content; ``folder`` is where certificates are kept, "" for nowhere.
    """

    recipe: str
    rules: dict[str, bool | int | None]
    seconds: float
    required: bool
    model: str
    folder: str = ""
