"""What ``paddock demo`` does: the same requests at once and one after another, measured and compared."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import attrs
import click
import trio

from paddock.api.model import Model
from paddock.api.runtime import Runtime, TreeNode
from paddock.cli.demo_display import StreamView, shown_streams
from paddock.cli.demo_prompts import demo_prompts
from paddock.cli.failures import FAILED
from paddock.cli.interrupts import Interrupts, run_interruptible
from paddock.cli.loading import loaded_model, model_config
from paddock.cli.output import note, write_json, write_text
from paddock.cli.tree_view import draw_tree
from paddock.engine.requests.results import Completion
from paddock.sampling.parameters import SamplingParameters

__all__ = ["Demonstration", "Phase", "demonstrate"]

_PROMPT_ROOM = 96
"""Tokens of context for a prompt of the demo."""
_CONTEXT_STEP = 256


@attrs.frozen(kw_only=True)
class Phase:
    """One way of running the requests, and what it took. ``seconds`` is wall time, from first request to last reply."""

    completions: tuple[Completion, ...]
    seconds: float
    decode_steps: int
    prefill_steps: int
    worker_deaths: int

    @property
    def tokens(self) -> int:
        return sum(completion.usage.completion_tokens for completion in self.completions)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds > 0 else 0.0


@attrs.frozen(kw_only=True)
class Demonstration:
    """Both phases, and the supervision tree as it stood during the first."""

    model: str
    exactness: str
    prompts: tuple[str, ...]
    at_once: Phase
    one_by_one: Phase
    tree: TreeNode

    @property
    def differing(self) -> tuple[int, ...]:
        """The streams, counted from 1, that did not give the same tokens and text alone as in company."""
        pairs = zip(self.at_once.completions, self.one_by_one.completions, strict=True)
        return tuple(
            number
            for number, (one, other) in enumerate(pairs, 1)
            if (one.token_ids, one.text) != (other.token_ids, other.text)
        )

    @property
    def identical(self) -> bool:
        return not self.differing

    @property
    def broken_promise(self) -> bool:
        """Whether streams differ under a schedule that says they do not."""
        return not self.identical and self.exactness != "off"

    def described(self) -> dict[str, object]:
        """What ``--json`` prints."""
        at_once, one_by_one = self.at_once, self.one_by_one
        return {
            "streams": len(self.prompts),
            "identical": self.identical,
            "restarts": at_once.worker_deaths + one_by_one.worker_deaths,
            "recovery_seconds": None,  # nothing is killed by this version's demo
            "tokens_per_second": round(at_once.tokens_per_second, 1),
            "tokens": at_once.tokens,
            "decode_steps": at_once.decode_steps,
            "prefill_steps": at_once.prefill_steps,
            "seconds": round(at_once.seconds, 3),
            "one_after_another": {
                "tokens_per_second": round(one_by_one.tokens_per_second, 1),
                "tokens": one_by_one.tokens,
                "decode_steps": one_by_one.decode_steps,
                "prefill_steps": one_by_one.prefill_steps,
                "seconds": round(one_by_one.seconds, 3),
            },
            "differing": self.differing,
            "model": self.model,
            "exactness": self.exactness,
            "seeds": [completion.seed for completion in at_once.completions],
            "prompts": self.prompts,
            "tree": self.tree,
        }

    def lines(self) -> list[str]:
        """The summary for people."""
        at_once, one_by_one = self.at_once, self.one_by_one
        count = len(self.prompts)
        per_step = at_once.tokens / at_once.decode_steps if at_once.decode_steps else 0.0
        verdict = (
            f"all {count} identical to the same requests one after another"
            if self.identical
            else f"NOT identical: stream {', '.join(map(str, self.differing))} of {count}"
        )
        return [
            f"streams        {count} on {self.model}, exactness {self.exactness}",
            f"together       {at_once.tokens_per_second:.0f} tokens/s: {at_once.tokens} tokens in "
            f"{at_once.seconds:.2f} s",
            f"one by one     {one_by_one.tokens_per_second:.0f} tokens/s: {one_by_one.tokens} tokens in "
            f"{one_by_one.seconds:.2f} s",
            f"batching       {at_once.decode_steps} decode steps for {at_once.tokens} tokens "
            f"({per_step:.1f} tokens a step), {at_once.prefill_steps} prefill steps; "
            f"one by one {one_by_one.decode_steps} and {one_by_one.prefill_steps}",
            f"comparison     {verdict}",
            "",
            *draw_tree(self.tree),
        ]


def demonstrate(options: Mapping[str, Any]) -> None:
    """Runs the demonstration and prints its summary. Raises PaddockError, Interrupted, BrokenPipeError."""
    as_json, quiet = bool(options.get("as_json")), bool(options.get("quiet"))
    count, max_tokens = options["streams"], options["max_tokens"]
    requests = [
        {"prompt": prompt, "max_tokens": max_tokens, "temperature": options["temperature"], "seed": seed}
        for seed, prompt in enumerate(demo_prompts(count), options["seed"])
    ]
    for request in requests:
        SamplingParameters.from_mapping({name: value for name, value in request.items() if name != "prompt"})
    context = -(-(max_tokens + _PROMPT_ROOM) // _CONTEXT_STEP) * _CONTEXT_STEP
    config = model_config(options["model"], options, n_seq_max=count, n_ctx=context, queue_limit=max(count, 1))

    async def work(_: Interrupts) -> Demonstration:
        async with loaded_model(config, quiet=quiet) as (runtime, model):
            at_once, tree = await _at_once(runtime, model, requests, quiet=quiet)
            one_by_one = await _one_by_one(model, requests, quiet=quiet)
            return Demonstration(
                model=model.name,
                exactness=model.exactness,
                prompts=tuple(request["prompt"] for request in requests),
                at_once=at_once,
                one_by_one=one_by_one,
                tree=tree,
            )

    demonstration = run_interruptible(work)
    if as_json:
        write_json(demonstration.described())
    else:
        write_text("\n".join(demonstration.lines()) + "\n")
    if demonstration.broken_promise:
        raise click.exceptions.Exit(FAILED)


async def _at_once(
    runtime: Runtime, model: Model, requests: Sequence[Mapping[str, Any]], *, quiet: bool
) -> tuple[Phase, TreeNode]:
    views = [StreamView(request["prompt"]) for request in requests]
    writing = trio.Event()
    tree: TreeNode | None = None

    async def look_at_tree() -> None:
        nonlocal tree
        await writing.wait()
        tree = await runtime.tree()

    async def run_all() -> tuple[Completion, ...]:
        results: list[Completion | None] = [None] * len(requests)

        async def follow(index: int) -> None:
            request = {name: value for name, value in requests[index].items() if name != "prompt"}
            results[index] = await _follow(model, views[index], request, writing)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look_at_tree)
            for index in range(len(requests)):
                nursery.start_soon(follow, index)
        return tuple(result for result in results if result is not None)

    async with shown_streams(views, quiet=quiet):
        phase = await _measured(model, run_all)
    return phase, tree if tree is not None else await runtime.tree()


async def _follow(model: Model, view: StreamView, arguments: Mapping[str, Any], writing: trio.Event) -> Completion:
    async with model.stream(view.prompt, **arguments) as request:
        while deltas := await request.receive_many():
            writing.set()
            view.text += "".join(delta.text for delta in deltas)
            view.tokens += sum(len(delta.token_ids) for delta in deltas)
        completion = await request.result()
    writing.set()
    view.tokens = completion.usage.completion_tokens
    view.finish_reason = completion.finish_reason
    return completion


async def _one_by_one(model: Model, requests: Sequence[Mapping[str, Any]], *, quiet: bool) -> Phase:
    if not quiet:
        note(f"the same {len(requests)} requests one after another")

    async def run_all() -> tuple[Completion, ...]:
        return tuple([await model.complete(**request) for request in requests])

    return await _measured(model, run_all)


async def _measured(model: Model, run_all: Callable[[], Awaitable[tuple[Completion, ...]]]) -> Phase:
    before = await model.statistics()
    started = time.perf_counter()
    completions = await run_all()
    seconds = time.perf_counter() - started
    after = await model.statistics()

    return Phase(
        completions=completions,
        seconds=seconds,
        decode_steps=after.decode_steps - before.decode_steps,
        prefill_steps=after.prefill_steps - before.prefill_steps,
        worker_deaths=after.worker_deaths - before.worker_deaths,
    )
