"""What exactness costs: the same model under the fastest settings and under each recipe, side by side.

Each recipe has a process of its own (see :mod:`paddock.native.exactness.measuring`); they take turns at each point, so
that what else the machine does disturbs all of them alike.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import msgspec
import trio

from paddock.config import ExactnessRecipe, ModelConfig
from paddock.engine.batching.recipes import FAST
from paddock.engine.plan import ModelPlan, plan_model
from paddock.errors import ModelLoadFailed
from paddock.models.facts import ModelFacts
from paddock.native.exactness.certificate import Certificate
from paddock.native.exactness.measuring import Answer, Measure, Setup

__all__ = ["RECIPES", "CostPoint", "ProbeReport", "measure_recipes"]

RECIPES = ("fast", "canonical", "invariant")
_PROMPT = 512
_ROWS = (1, 8, 16)
_SHORT = 64
_LONGEST = 4096
_ROUNDS = 3
_COMMAND = (sys.executable, "-m", "paddock.native.exactness.measuring")


@attrs.frozen
class CostPoint:
    """One thing that was measured: "prefill" of ``rows`` tokens, or "decode" of ``rows`` sequences at once, behind
    ``depth`` tokens. ``tokens_per_second`` by recipe is the best of the rounds; None where it could not be done."""

    kind: str
    rows: int
    depth: int
    tokens_per_second: Mapping[str, float | None]


@attrs.frozen
class ProbeReport:
    """``certificates`` by recipe; ``cost`` is empty when it was not wanted."""

    facts: ModelFacts
    certificates: Mapping[str, Certificate]
    problems: Mapping[str, str]
    """By recipe, why it could not be loaded."""
    cost: tuple[CostPoint, ...]
    n_threads: int


async def measure_recipes(
    config: ModelConfig,
    facts: ModelFacts,
    fingerprint: str,
    *,
    seconds: float,
    note: Callable[[str], None],
) -> ProbeReport:
    """Certifies both recipes anew and measures for about ``seconds``; 0 measures nothing. ``note`` is told what is
    being done.

    Raises the errors of :func:`paddock.engine.plan.plan_model`, and ModelLoadFailed when no recipe can be loaded. A
    checkpoint; cancelling it ends the processes.
    """
    plans = {name: _plan(config, facts, fingerprint, name) for name in RECIPES if seconds > 0 or name != "fast"}
    depth = _depth(plans["canonical"], seconds)
    certificates: dict[str, Certificate] = {}
    problems: dict[str, str] = {}
    cost: tuple[CostPoint, ...] = ()
    async with AsyncExitStack() as stack:
        running: dict[str, _Process] = {}
        for name, plan in plans.items():
            note(f"{name}: loading" if name == "fast" else f"{name}: loading and probing")
            process = await stack.enter_async_context(_process(plan, depth))
            answer = await process.receive()
            if answer.error:
                problems[name] = answer.error
                note(f"{name}: {answer.error}")
                continue
            running[name] = process
            if answer.certificate is not None:
                certificates[name] = answer.certificate
        if not running:
            raise ModelLoadFailed(facts.name, "; ".join(problems.values()))
        if seconds > 0:
            cost = await _measure(running, depth, seconds, note)
    threads = plans["canonical"].load.context["n_threads"]
    assert isinstance(threads, int)
    return ProbeReport(facts, certificates, problems, cost, threads)


def _plan(config: ModelConfig, facts: ModelFacts, fingerprint: str, name: str) -> ModelPlan:
    if name == "fast":
        return plan_model(attrs.evolve(config, exactness="off"), facts)
    recipe: ExactnessRecipe = "invariant" if name == "invariant" else "canonical"
    exact = attrs.evolve(config, exactness="preferred", exactness_recipe=recipe)
    return plan_model(exact, facts, fingerprint=fingerprint)


def _depth(plan: ModelPlan, seconds: float) -> int:
    """How long the long context is: as long as the model, the budget and a quarter of the memory that is free allow."""
    facts = plan.facts
    token_bytes = 2 * facts.n_layer * facts.n_head_kv * (facts.n_embd_head_k + facts.n_embd_head_v)
    room = _free_bytes() // 4 // (len(RECIPES) * max(_ROWS) * max(token_bytes, 1)) - _PROMPT - 2 * _SHORT
    # Each process computes the long context once; 30 million weights are about 2,000 tokens a second.
    affordable = int(seconds / 8 * 6e10 / max(facts.parameter_count, 1))
    trained = (facts.n_ctx_train or _LONGEST) - _PROMPT - 2 * _SHORT
    longest = min(_LONGEST, trained, room, affordable)
    return max(longest // 256 * 256, 0)


def _free_bytes() -> int:
    import psutil

    return int(psutil.virtual_memory().available)


async def _measure(
    running: Mapping[str, _Process], depth: int, seconds: float, note: Callable[[str], None]
) -> tuple[CostPoint, ...]:
    depths = [_SHORT, depth] if depth > _SHORT else [_SHORT]
    points = [("prefill", _PROMPT, at if at > _SHORT else 0) for at in depths]
    points += [("decode", rows, at) for at in depths for rows in _ROWS]
    best: dict[tuple[str, int, int], dict[str, float | None]] = {point: {} for point in points}
    end = trio.current_time() + seconds
    for turn in range(_ROUNDS):
        for point in points:
            kind, rows, at = point
            if turn and trio.current_time() > end:
                break  # each point was measured once, whatever that took
            note(f"measuring: {kind} of {rows} {'tokens' if kind == 'prefill' else 'sequences'} behind {at} tokens")
            order = Measure(rows, 0, at) if kind == "decode" else Measure(0, rows, at)
            for name, process in running.items():
                answer = await process.ask(order)
                before = best[point].get(name)
                if answer.error:
                    best[point].setdefault(name, None)
                elif before is None or answer.tokens_per_second > before:
                    best[point][name] = answer.tokens_per_second
    return tuple(CostPoint(kind, rows, at, best[kind, rows, at]) for kind, rows, at in points)


class _Process:
    """A measuring process: a line to it, a line from it."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._buffer = bytearray()

    async def send(self, message: msgspec.Struct) -> None:
        assert self._process.stdin is not None
        try:
            await self._process.stdin.send_all(msgspec.json.encode(message) + b"\n")
        except trio.BrokenResourceError:
            pass  # its end is seen by receive

    async def receive(self) -> Answer:
        assert self._process.stdout is not None
        while b"\n" not in self._buffer:
            data = await self._process.stdout.receive_some()
            if not data:
                code = await self._process.wait()
                return Answer(error=f"its process ended with {code}")
            self._buffer += data
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer[:] = rest
        return msgspec.json.decode(line, type=Answer)

    async def ask(self, message: msgspec.Struct) -> Answer:
        await self.send(message)
        return await self.receive()


@asynccontextmanager
async def _process(plan: ModelPlan, depth: int) -> AsyncIterator[_Process]:
    """A process that was sent its set-up; it is gone when the block ends."""
    context = dict(plan.load.context)
    measured = context | {"n_ctx": depth + _PROMPT + 2 * _SHORT, "n_seq_max": max(_ROWS)}
    order = plan.load.probe
    setup = Setup(
        path=os.fspath(plan.facts.path),
        model=plan.load.model,
        probed=context,
        measured=measured,
        rules=order.rules if order is not None else _FAST_RULES,
        probe=order,
    )
    environment = {**os.environ, **dict(plan.recipe.environment)}
    process = await trio.lowlevel.open_process(
        _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    try:
        made = _Process(process)
        await made.send(setup)
        yield made
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            if process.stdin is not None:
                await process.stdin.aclose()
            if process.stdout is not None:
                await process.stdout.aclose()


_FAST_RULES: dict[str, bool | int | None] = {
    "separate_prefill": FAST.separate_prefill,
    "minimum_chunk": FAST.minimum_chunk,
    "decode_row_cap": FAST.decode_row_cap,
    "tokens_alone": FAST.tokens_alone,
}
