"""For which weights is which schedule exact? By default: what ``recipe_for`` picks for each kind of weights, under both
recipes; with ``--schedules``, any that was thought of.

Random models are made and quantized on the spot. For each pair of weights and schedule the probe of
``paddock.native.exactness`` runs in a process of its own (the library reads its environment once), with several
conversations, and its checks are printed; see ``docs/exactness.md`` for what came out and what follows from it.

    python bench/exactness.py [--weights Q8_0 F16 moe-Q8_0 ...] [--schedules canonical invariant ...] [--trace]

``--trace`` compares every intermediate tensor instead of logits and cells, which shows differences that 8-bit
activations mostly hide. It needs the names that llama.cpp gives to its tensors.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import structlog

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from tensor_trace import Trace, difference

from gguf_builders import build_random_model
from paddock.engine.batching.recipes import recipe_for
from paddock.models import facts_of, read_header
from paddock.native.batch import Chunk, SampleMode
from paddock.native.context import Context
from paddock.native.exactness.conversation import Rules
from paddock.native.exactness.probe import probe_context
from paddock.native.model import NativeModel
from paddock.native.quantize import quantize_model
from paddock.sampling import SamplingParameters

WEIGHTS = [
    "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "F16", "BF16", "F32",
    "Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "IQ4_XS", "IQ3_S", "TQ2_0",
    "moe-Q8_0", "moe-Q4_0", "moe-F16", "moe-Q4_K_M", "moe-Q6_K",
]  # fmt: skip

FREE = {"separate_prefill": False, "minimum_chunk": 1, "decode_row_cap": None, "tokens_alone": True}
APART = {"separate_prefill": True, "minimum_chunk": 2, "decode_row_cap": None, "tokens_alone": False}
FLASH = {"flash_attention": True, "type_v": "bf16"}
UNTILED = {"GGML_CPU_TILED_MM": "0"}

SCHEDULES: dict[str, dict[str, Any]] = {
    "fast": {"rules": FREE, "context": {"flash_attention": True}, "repack": True},
    "canonical": {"rules": APART, "repack": True},
    "canonical, not repacked": {"rules": APART, "repack": False},
    "canonical, pairs": {"rules": APART, "repack": True, "context": {"pair_rows": True}},
    "canonical, single rows": {"rules": APART | {"decode_row_cap": 1}, "repack": False},
    "canonical, chunks of 8, 7 rows": {
        "rules": APART | {"minimum_chunk": 8, "decode_row_cap": 7}, "repack": False
    },
    "canonical, chunks of 8, 5 rows, pairs": {
        "rules": APART | {"minimum_chunk": 8, "decode_row_cap": 5}, "repack": False, "context": {"pair_rows": True}
    },
    "canonical, repacked, 3 rows": {"rules": APART | {"minimum_chunk": 4, "decode_row_cap": 3}, "repack": True},
    "canonical, no tiles": {"rules": APART, "repack": False, "environment": UNTILED},
    "canonical, no tiles, pairs": {
        "rules": APART, "repack": False, "environment": UNTILED, "context": {"pair_rows": True}
    },
    "canonical, tiles only": {"rules": APART, "repack": False, "environment": {"GGML_CPU_TILED_MM_FORCE": "1"}},
    "canonical, flash, chunks of 64": {
        "rules": APART | {"minimum_chunk": 64}, "repack": True, "context": {"flash_attention": True, "pair_rows": True}
    },
    "invariant": {"rules": FREE, "repack": False, "context": FLASH, "environment": UNTILED},
    "invariant, repacked": {"rules": FREE, "repack": True, "context": FLASH, "environment": UNTILED},
    "invariant, tiles only": {
        "rules": FREE, "repack": False, "context": FLASH, "environment": {"GGML_CPU_TILED_MM_FORCE": "1"}
    },
    "invariant, pairs": {
        "rules": FREE | {"separate_prefill": True, "minimum_chunk": 1}, "repack": False, "environment": UNTILED,
        "context": FLASH | {"pair_rows": True},
    },
    "invariant, no flash": {"rules": FREE, "repack": False, "environment": UNTILED},
}  # fmt: skip


RECIPES = ("recipe canonical", "recipe invariant")


def schedule_of(name: str, path: Path) -> dict[str, Any]:
    """One of ``SCHEDULES``, or what a recipe is for this file."""
    if name not in RECIPES:
        return SCHEDULES[name]
    facts = facts_of(read_header(path))
    recipe = recipe_for("required", facts.matrix_types, recipe=name.split()[1], mixture=facts.n_expert > 0)
    return {
        "rules": {rule: getattr(recipe, rule) for rule in APART},
        "repack": recipe.use_extra_bufts,
        "context": {
            "flash_attention": recipe.flash_attention, "type_v": recipe.type_v, "pair_rows": recipe.pair_rows
        },
        "environment": dict(recipe.environment),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", nargs="+", choices=WEIGHTS, default=WEIGHTS)
    parser.add_argument("--schedules", nargs="+", choices=[*RECIPES, *SCHEDULES, "all"], default=list(RECIPES))
    parser.add_argument("--conversations", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--kv", nargs=2, metavar=("K", "V"), help="types of the cache, instead of the schedule's")
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    if arguments.child:
        print(json.dumps((trace if arguments.trace else probe)(Path(arguments.child), arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for weights in arguments.weights:
            path = make(Path(folder), weights)
            for schedule in [*SCHEDULES] if "all" in arguments.schedules else arguments.schedules:
                own = ["--schedules", schedule, "--conversations", str(arguments.conversations)]
                own += ["--threads", str(arguments.threads), "--child", str(path)]
                own += ["--kv", *arguments.kv] if arguments.kv else []
                own += ["--trace"] if arguments.trace else []
                environment = os.environ | schedule_of(schedule, path).get("environment", {})
                done = subprocess.run(
                    [sys.executable, __file__, *own], env=environment, capture_output=True, text=True, check=False
                )
                result = json.loads(done.stdout) if done.returncode == 0 else {"error": done.stderr[-300:]}
                print(json.dumps({"weights": weights, "schedule": schedule, **result}), flush=True)


def make(folder: Path, weights: str) -> Path:
    """A random model with these weights: 4 layers of 256, or, "moe-", 2 layers with 8 experts."""
    mixture, _, file_type = weights.rpartition("-")
    source = folder / f"{mixture or 'dense'}.gguf"
    if not source.exists():
        if mixture:
            build_random_model(source, weight_type="f32", n_layer=2, n_expert=8)
        else:
            build_random_model(source, weight_type="f32")
    path = folder / f"{weights}.gguf"
    if not path.exists():
        quantize_model(source, path, file_type, n_threads=2)
    return path


def probe(path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The checks that failed, with what differed, and whether all others were run."""
    schedule = schedule_of(arguments.schedules[0], path)
    model = NativeModel.load(path, {"use_extra_bufts": schedule["repack"]})
    context = Context.create(model, parameters_of(schedule, arguments))
    failed: dict[str, str] = {}
    complete = True
    for seed in range(arguments.conversations):
        found = probe_context(context, model.n_vocab, Rules(**schedule["rules"]), seconds=120, seed=1000 * seed)
        failed |= {check.name: check.detail for check in found.checks if check.outcome == "failed"}
        complete = complete and all(check.outcome != "not_run" for check in found.checks)
    context.free()
    model.free()
    exact = complete and not failed.keys() - {"threads"}
    return {"exact": exact, "failed": failed, "complete": complete, "matrices": dict(model.facts.matrix_types)}


def parameters_of(schedule: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    parameters = {
        "n_ctx": 512, "n_seq_max": 9, "n_threads": arguments.threads, "n_threads_batch": arguments.threads,
        **schedule.get("context", {}),
    }  # fmt: skip
    return parameters | ({"type_k": arguments.kv[0], "type_v": arguments.kv[1]} if arguments.kv else {})


PROMPT, TAIL = 300, 32


def trace(path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """What differs in the last 32 tokens of a prompt between one chunk and several, and between generated tokens alone
    and beside others; under a recipe that claims it, also between prompt and generated."""
    schedule = schedule_of(arguments.schedules[0], path)
    rules = Rules(**schedule["rules"])
    model = NativeModel.load(path, {"use_extra_bufts": schedule["repack"]})
    listening = Trace()
    with listening.installed():
        context = Context.create(model, parameters_of(schedule, arguments))
    draw = random.Random(0)
    tokens = [draw.randrange(model.n_vocab) for _ in range(PROMPT)]
    sampling = SamplingParameters(temperature=0, seed=0)
    listening.wanted = range(PROMPT - TAIL, PROMPT)

    def call(chunks: list[Chunk]) -> None:
        listening.next_call()
        context.decode_and_sample_batch(chunks)

    def run(sizes: list[int], neighbours: int = 0, name: int = 4) -> dict[Any, bytes]:
        """Neighbours stand at positions that are not compared; the nearest ids come first."""
        listening.rows = {}
        ids = sorted((other for other in range(9) if other != name), key=lambda other: abs(other - name))
        for other in (name, *ids[:neighbours]):
            context.open_sequence(other, 1, sampling)
        for other in ids[:neighbours]:
            call([Chunk(other, 1, 0, tokens[:8])])
        at = 0
        for size in sizes:
            mode = SampleMode.LOGITS if size == 1 else SampleMode.NONE
            chunks = [Chunk(name, 1, at, tokens[at : at + size], mode)]
            if size == 1:
                chunks += [Chunk(other, 1, context.position(other), [7], mode) for other in ids[:neighbours]]
            call(chunks)
            at += size
        for other in range(9):
            context.release_sequence(other, 1)
        return listening.rows

    least = rules.minimum_chunk
    head, count = PROMPT - TAIL, max(1, TAIL // least)
    whole = run([PROMPT])
    ones = run([head, *[1] * TAIL])
    found = {
        "smallest chunks": difference(whole, run([PROMPT - count * least, *[least] * count])),
        "chunks": difference(whole, run([64, PROMPT - 64 - 67, 67])),
    }
    if rules.tokens_alone:
        found["single rows"] = difference(whole, ones)
    for neighbours in (1, 2, 3, 6, 7, 8):
        if rules.decode_row_cap is None or neighbours < rules.decode_row_cap:
            found[f"{neighbours} beside"] = difference(ones, run([head, *[1] * TAIL], neighbours))
    return {"exact": not any(found.values()), "found": {name: what for name, what in found.items() if what}}


if __name__ == "__main__":
    main()
