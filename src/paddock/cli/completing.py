"""What ``paddock run`` does: one request, streamed or as an object."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from paddock.api.model import Model
from paddock.cli.interrupts import Interrupts, run_interruptible
from paddock.cli.loading import loaded_model, model_config
from paddock.cli.output import end_line, note, write_json, write_text_in_thread
from paddock.cli.sampling_options import sampling_arguments
from paddock.engine.requests.results import Completion
from paddock.sampling.parameters import SamplingParameters

__all__ = ["complete_once", "completion_object", "summary"]


def complete_once(prompt: str | bytes, options: Mapping[str, Any]) -> None:
    """Completes ``prompt`` and prints the reply. Raises PaddockError, Interrupted, BrokenPipeError."""
    sampling = sampling_arguments(options)
    SamplingParameters.from_mapping(sampling)  # refused before a model is loaded for nothing
    arguments = {
        **sampling,
        "deadline": options.get("deadline"),
        "add_special": not options.get("no_add_special"),
        "parse_special": bool(options.get("parse_special")),
    }
    as_json, quiet = bool(options.get("as_json")), bool(options.get("quiet"))
    config = model_config(options["model"], options, n_seq_max=1)

    async def work(_: Interrupts) -> tuple[Completion, float]:
        async with loaded_model(config, quiet=quiet) as (_runtime, model):
            started = time.monotonic()
            if as_json:
                completion = await model.complete(prompt, **arguments)
            else:
                completion = await _stream(model, prompt, arguments)
            return completion, time.monotonic() - started

    completion, seconds = run_interruptible(work)
    if as_json:
        write_json(completion_object(completion))
    elif not quiet:
        note(summary(completion, seconds))


async def _stream(model: Model, prompt: str | bytes, arguments: Mapping[str, Any]) -> Completion:
    """Prints the text as it comes, and a line end after it where it has none."""
    line_open = False
    try:
        async with model.stream(prompt, **arguments) as request:
            while deltas := await request.receive_many():
                text = "".join(delta.text for delta in deltas)
                if text:
                    line_open = not text.endswith("\n")
                    await write_text_in_thread(text)
            return await request.result()
    finally:
        if line_open:
            end_line()


def completion_object(completion: Completion) -> dict[str, object]:
    """What ``--json`` prints; nothing in it depends on time."""
    described: dict[str, object] = {
        "text": completion.text,
        "token_ids": completion.token_ids,
        "finish_reason": completion.finish_reason,
        "seed": completion.seed,
        "usage": completion.usage,
        "exactness": completion.exactness,
    }
    if completion.logprobs is not None:
        described["logprobs"] = completion.logprobs
    return described


def summary(completion: Completion, seconds: float) -> str:
    """One line about a finished reply."""
    usage = completion.usage
    speed = f", {usage.completion_tokens / seconds:.0f} tokens/s" if seconds > 0 else ""
    return (
        f"[{completion.finish_reason}: {usage.completion_tokens} tokens after a prompt of {usage.prompt_tokens}"
        f"{speed}; seed {completion.seed}, exactness {completion.exactness}]"
    )
