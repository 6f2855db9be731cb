"""What a tree of processes looks like, as text that a test can compare."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TypeAlias

from supervisors.nodes.node import Node, stack_of
from supervisors.processes.pid import Target
from supervisors.supervision.tree import ProcessInfo, tree

Shape: TypeAlias = "str | Mapping[str, Shape] | Sequence[Shape] | None"
"""A tree as a literal: ``{"root": ["worker", {"pool": ["a", "b"]}]}``; or as text, children indented by two spaces."""


def outline(root: Target | Node) -> str:
    """The processes below a process, a name or a node, as text: a line for each, children indented by two spaces.

    A line is the label, followed by the status as in `tree` when it is neither running nor waiting: "worker (stopped)"
    is a child whose spec is kept without a process. Children come in the order they were started. Synchronous.
    NoProc when there is no such process.
    """
    info = tree(root)
    return "\n".join(_lines(info.children if isinstance(root, Node) else (info,), ""))


def assert_tree(root: Target | Node, expected: Shape) -> None:
    """The tree has exactly these processes, by label and in this order; AssertionError with the difference.

    ``expected`` is text as `outline` writes it, at any indentation, or a literal of the same shape.
    """
    lines = textwrap.dedent(expected).splitlines() if isinstance(expected, str) else _shaped(expected)
    wanted = [line.rstrip() for line in lines if line.strip()]
    found = outline(root).splitlines()
    if wanted != found:
        difference = "\n".join(difflib.unified_diff(wanted, found, "expected", "found", lineterm="", n=100))
        raise AssertionError(f"another tree than expected:\n{difference}")


def assert_no_process_left(node: Node) -> None:
    """No process of the node is alive; AssertionError with the tree, and the stacks of those that no supervisor has."""
    if node.processes:
        stacks = "\n".join(f"{pid!r}:\n{stack_of(pid)}" for pid in node.processes)
        raise AssertionError(f"processes are left:\n{outline(node)}\n\n{stacks}")


def assert_restarted(root: Target | Node, child: Hashable, times: int) -> None:
    """The child below ``root`` has been restarted exactly so often by its supervisor; tries that failed count.

    ``child`` is an id, a label or a pid. AssertionError also when there is no such child, or more than one. A child
    that was added anew, or whose supervisor was restarted, starts again at 0.
    """
    below = [info for info in tree(root).walk() if child in (info.id, info.label, info.pid)]
    if [info.restarts for info in below] != [times]:
        counts = ", ".join(f"{info.label} {info.restarts}" for info in below)
        raise AssertionError(f"{child!r} was not restarted exactly {times} times, but: {counts or 'there is none'}")


def _lines(infos: Sequence[ProcessInfo], indent: str) -> Iterator[str]:
    for info in infos:
        status = "" if info.status in ("running", "waiting") else f" ({info.status})"
        yield f"{indent}{info.label}{status}"
        yield from _lines(info.children, f"{indent}  ")


def _shaped(shape: Shape, indent: str = "") -> Iterator[str]:
    if isinstance(shape, str):
        yield f"{indent}{shape}"
    elif isinstance(shape, Mapping):
        for label, below in shape.items():
            yield f"{indent}{label}"
            yield from _shaped(below, f"{indent}  ")
    elif shape is not None:
        for part in shape:
            yield from _shaped(part, indent)
