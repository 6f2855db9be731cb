"""Train cria from nothing: corpus, tokenizer, network. `python -m tools.cria.train --help`.

Matrices are trained by Muon (Jordan et al., 2024), embeddings and norms by AdamW; the learning rate warms up, stays, and
falls linearly to zero over the last `--decay` steps. Everything is drawn from fixed seeds. The run can be stopped and taken
up again from its last checkpoint, and is then the same as an unbroken one.

The work of a step is shared by processes of one thread each, which meet once a step to add their gradients: on cores that
others use too this is much faster than threads that meet in every operation.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.distributed
import torch.multiprocessing
import torch.nn.functional as F
from torch import Tensor

from tools.cria.batches import Encoded, Group, encode, steps
from tools.cria.corpus import SEED
from tools.cria.model import Cria, Shape
from tools.cria.tokenizer import train as train_tokenizer

VALIDATION_SEED = SEED + 2


def group_loss(model: Cria, group: Group, bfloat16: bool) -> Tensor:
    """Summed cross-entropy in nats over the trained tokens of a group."""
    tokens, trained = torch.from_numpy(group[0]), torch.from_numpy(group[1])
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
        hidden = model.hidden(tokens[:, :-1])[trained[:, 1:]]
        logits = F.linear(hidden, model.token_embd.weight)
    return F.cross_entropy(logits.float(), tokens[:, 1:][trained[:, 1:]], reduction="sum")


def validation_loss(model: Cria, held: list[list[Group]], bfloat16: bool) -> float:
    """Mean loss in nats per trained token on documents from another seed."""
    model.eval()
    with torch.no_grad():
        total = sum(float(group_loss(model, group, bfloat16)) for step in held for group in step)
    model.train()
    return total / sum(int(trained[:, 1:].sum()) for step in held for _, trained in step)


def learning_rate_factor(step: int, options: argparse.Namespace) -> float:
    """Warm-up, plateau, linear decay to zero."""
    if step < options.warmup:
        return (step + 1) / options.warmup
    left = options.steps - step
    return min(1.0, left / options.decay) if options.decay else 1.0


def make_optimizers(model: Cria, options: argparse.Namespace) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the rest."""
    matrices = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and name.startswith("blk.")]
    others = [weight for name, weight in model.named_parameters() if not (weight.ndim == 2 and name.startswith("blk."))]
    return [
        torch.optim.Muon(
            matrices, lr=options.muon_rate, momentum=0.95, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=options.adam_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def save(
    path: Path, model: Cria, optimizers: list[torch.optim.Optimizer], step: int, record: dict[str, object]
) -> None:
    """Write a checkpoint, whole or not at all."""
    temporary = path.with_suffix(".part")
    torch.save(
        {
            "shape": asdict(model.shape),
            "model": model.state_dict(),
            "optimizers": [o.state_dict() for o in optimizers],
            "step": step,
            "record": record,
        },
        temporary,
    )
    temporary.replace(path)


def run(options: argparse.Namespace) -> None:
    """Prepare the data, train, and leave `checkpoint.pt` and `log.jsonl` in the directory."""
    directory: Path = options.directory
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = directory / "tokenizer.model"
    if not tokenizer.exists():
        train_tokenizer(tokenizer)
    began = time.monotonic()
    data = cached(directory / f"corpus-{options.documents}.npz", tokenizer, options)
    held = encode(tokenizer, VALIDATION_SEED, 600, options.processes)
    print(
        f"{options.documents} documents, {len(data.tokens)} tokens, {int(data.trained.sum())} of them trained, {time.monotonic() - began:.0f} s",
        flush=True,
    )
    meeting = directory / "meeting"
    meeting.unlink(missing_ok=True)
    torch.multiprocessing.start_processes(
        train, (options, data, held, f"file://{meeting.resolve()}"), nprocs=options.processes, start_method="spawn"
    )


def cached(path: Path, tokenizer: Path, options: argparse.Namespace) -> Encoded:
    """The tokenized corpus, kept in a file for the next time."""
    if not path.exists():
        data = encode(tokenizer, SEED, options.documents, options.processes)
        np.savez(path, tokens=data.tokens, trained=data.trained, starts=data.starts)
    with np.load(path) as arrays:
        return Encoded(arrays["tokens"], arrays["trained"], arrays["starts"])


def resume(path: Path, model: Cria, optimizers: list[torch.optim.Optimizer]) -> tuple[int, float, int]:
    """Load a checkpoint if there is one; (steps done, seconds spent, tokens seen)."""
    if not path.exists():
        return 0, 0.0, 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return state["step"], state["record"]["seconds"], state["record"]["tokens"]


def shared(groups: list[Group], rank: int, processes: int) -> list[Group]:
    """The groups of one process: the largest remaining group goes to whoever has least."""
    shares: list[list[Group]] = [[] for _ in range(processes)]
    loads = [0] * processes
    for group in sorted(groups, key=lambda group: -group[0].size):
        least = loads.index(min(loads))
        shares[least].append(group)
        loads[least] += group[0].size
    return shares[rank]


def add_gradients(model: Cria, loss: float) -> float:
    """Sum the gradients, and the loss, over all processes."""
    gradients = [weight.grad if weight.grad is not None else torch.zeros_like(weight) for weight in model.parameters()]
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), torch.tensor([loss])])
    torch.distributed.all_reduce(flat)
    position = 0
    for weight, gradient in zip(model.parameters(), gradients, strict=True):
        weight.grad = flat[position : position + gradient.numel()].view_as(weight).clone()
        position += gradient.numel()
    return float(flat[-1])


def train(rank: int, options: argparse.Namespace, data: Encoded, held_data: Encoded, meeting: str) -> None:
    """One process of the training: the loop over steps."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=options.processes)
    torch.manual_seed(SEED)
    model = Cria(Shape(layers=options.layers))
    optimizers = make_optimizers(model, options)
    rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    first, seconds, seen = resume(options.directory / "checkpoint.pt", model, optimizers)
    held = list(steps(held_data, options.step_tokens, options.group_tokens))
    if rank == 0:
        print(f"{sum(weight.numel() for weight in model.parameters())} parameters, from step {first}", flush=True)
    began = time.monotonic() - seconds
    smooth = 0.0
    for step, groups in enumerate(endless_steps(data, options)):
        if step < first:
            continue
        if step == options.steps:
            break
        factor = learning_rate_factor(step, options)
        for optimizer, base in zip(optimizers, rates, strict=True):
            for parameters, rate in zip(optimizer.param_groups, base, strict=True):
                parameters["lr"] = rate * factor
        count = sum(int(trained[:, 1:].sum()) for _, trained in groups)
        total = 0.0
        for group in shared(groups, rank, options.processes):
            loss = group_loss(model, group, options.bfloat16)
            (loss / count).backward()
            total += float(loss.detach())
        total = add_gradients(model, total)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        seen += sum(int((tokens > 0).sum()) for tokens, _ in groups)
        smooth = 0.95 * smooth + 0.05 * total / count if smooth else total / count
        done = step + 1
        if rank == 0 and done % 20 == 0:
            print(f"step {done} loss {smooth:.4f} {seen} tokens {time.monotonic() - began:.0f} s", flush=True)
        if rank == 0 and (done % options.save_every == 0 or done == options.steps):
            record = {
                "step": done, "tokens": seen, "seconds": round(time.monotonic() - began), "loss": round(smooth, 4),
                "validation": round(validation_loss(model, held, options.bfloat16), 4),
            }  # fmt: skip
            save(options.directory / "checkpoint.pt", model, optimizers, done, record)
            with (options.directory / "log.jsonl").open("a") as log:
                log.write(json.dumps(record) + "\n")
            print(record, flush=True)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def endless_steps(data: Encoded, options: argparse.Namespace) -> Iterator[list[Group]]:
    """The corpus step by step, again and again."""
    while True:
        yield from steps(data, options.step_tokens, options.group_tokens)


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m tools.cria.train", description=__doc__)
    parser.add_argument("directory", type=Path, help="where tokenizer, checkpoint and log go, e.g. build/cria")
    parser.add_argument("--steps", type=int, default=1650)
    parser.add_argument(
        "--decay", type=int, default=600, help="steps over which the learning rate falls to zero at the end"
    )
    parser.add_argument("--warmup", type=int, default=60)
    parser.add_argument("--documents", type=int, default=80_000, help="size of the corpus; it is repeated when used up")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--step-tokens", type=int, default=4096, help="tokens of a step, without padding")
    parser.add_argument("--group-tokens", type=int, default=1024, help="tokens computed at once, with padding")
    parser.add_argument("--muon-rate", type=float, default=0.006)
    parser.add_argument("--adam-rate", type=float, default=0.003)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--save-every", type=int, default=100)
    parser.add_argument("--no-bfloat16", dest="bfloat16", action="store_false", help="compute in float32")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
