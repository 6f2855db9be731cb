"""What ``paddock tree`` does, and how a supervision tree is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from paddock.api.runtime import TreeNode, open_runtime
from paddock.cli.interrupts import Interrupts, run_interruptible
from paddock.cli.loading import load_with_progress, model_config
from paddock.cli.output import write_json, write_text
from paddock.engine.statistics import ModelStatistics

__all__ = ["draw_tree", "show_tree", "statistics_lines"]


def show_tree(models: Sequence[str], options: Mapping[str, Any]) -> None:
    """Loads the models and prints the tree. Raises PaddockError, Interrupted, BrokenPipeError."""
    quiet = bool(options.get("quiet"))
    configs = [model_config(source, options) for source in models]

    async def work(_: Interrupts) -> tuple[TreeNode, dict[str, ModelStatistics]]:
        async with open_runtime() as runtime:
            statistics = {}
            for config in configs:
                model = await load_with_progress(runtime, config, quiet=quiet)
                statistics[model.name] = await model.statistics()
            return await runtime.tree(), statistics

    root, statistics = run_interruptible(work)
    if options.get("as_json"):
        write_json({"tree": root, "models": statistics})
        return
    lines = draw_tree(root)
    for one in statistics.values():
        lines += ["", *statistics_lines(one)]
    write_text("\n".join(lines) + "\n")


def draw_tree(node: TreeNode, *, most_children: int = 16) -> list[str]:
    """The tree as lines; of many processes of one kind only the first are named."""
    return [_label(node), *_branches(node, "", most_children)]


def _branches(node: TreeNode, indent: str, most: int) -> list[str]:
    shown = node.children if len(node.children) <= most else node.children[: most - 1]
    left = len(node.children) - len(shown)
    lines = []
    for index, child in enumerate(shown):
        last = index == len(shown) - 1 and not left
        lines.append(f"{indent}{'└── ' if last else '├── '}{_label(child)}")
        lines += _branches(child, indent + ("    " if last else "│   "), most)
    if left:
        lines.append(f"{indent}└── and {left} more")
    return lines


def _label(node: TreeNode) -> str:
    status = "" if node.status == "running" else f" [{node.status}]"
    kind = " (supervisor)" if node.type == "supervisor" else ""
    return f"{node.id}{kind}{status}"


def statistics_lines(statistics: ModelStatistics) -> list[str]:
    """A model's state and counters, in a few lines."""
    s = statistics
    worker = f"worker pid {s.worker_pid}" if s.worker_pid is not None else "worker in this process"
    lines = [
        f"model {s.name}: {s.state}; {worker}, {s.worker_starts} started, {s.worker_deaths} died",
        f"  requests: {s.submitted} submitted = {s.completed} completed + {s.failed} failed + {s.cancelled} cancelled "
        f"+ {s.queued} queued + {s.running} running; {s.refused} refused",
        f"  sequences: {s.sequences_free} of {s.sequences} free",
        f"  steps: {s.decode_steps} decode ({s.decode_rows} rows), {s.prefill_steps} prefill ({s.prefill_rows} rows), "
        f"{s.failed_steps} failed; {s.step_seconds:.3f} s",
    ]
    if s.last_error is not None:
        lines.append(f"  last error: {s.last_error}")
    return lines
