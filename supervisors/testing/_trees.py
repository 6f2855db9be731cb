"""What a tree of processes looks like, as text that a test can compare."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TypeAlias

from supervisors._child_spec import RESTARTING
from supervisors._node import Node, stack_of
from supervisors._pid import AnyPid, Target, live
from supervisors._supervision import Child, SupervisionLoop

Shape: TypeAlias = "str | Mapping[str, Shape] | Sequence[Shape] | None"
"""A tree as a literal: ``{"root": ["worker", {"pool": ["a", "b"]}]}``; or as text, children indented by two spaces."""


def outline(root: Target | Node) -> str:
    """The live processes below a process, a name or a node, as text: a line for each, children indented by two spaces.

    A line is the label; "(restarting)", "(starting)", "(stopping)" or "(not running)" follows where a child of a
    supervisor is that. Children come in the order they were started. Synchronous. NoProc when there is no such process.
    """
    pids = root.processes if isinstance(root, Node) else (live(root),)
    return "\n".join(line for pid in pids for line in _lines(pid, pid.label, ""))


def assert_tree(root: Target | Node, expected: Shape) -> None:
    """The tree has exactly these processes, by label and in this order; AssertionError with the difference.

    ``expected`` is text as `outline` writes it, at any indentation, or a literal of the same shape.
    """
    lines = textwrap.dedent(expected).strip("\n").splitlines() if isinstance(expected, str) else list(_shaped(expected))
    wanted = [line.rstrip() for line in lines if line.strip()]
    found = outline(root).splitlines()
    if wanted != found:
        difference = "\n".join(difflib.unified_diff(wanted, found, "expected", "found", lineterm="", n=100))
        raise AssertionError(f"another tree than expected:\n{difference}")


def assert_no_process_left(node: Node) -> None:
    """No process of the node is alive; AssertionError with the tree and the stacks of those that are."""
    if node.processes:
        stacks = "\n".join(f"{pid!r}:\n{stack_of(pid)}" for pid in node.processes)
        raise AssertionError(f"processes are left:\n{outline(node)}\n\n{stacks}")


def assert_restarted(supervisor: Target, child: Hashable, times: int) -> None:
    """The supervisor has restarted the child, named by id or pid, by itself exactly so often; tries that failed count.

    AssertionError also when it has no such child. A child that is added anew starts again at 0.
    """
    loop = live(supervisor)._loop
    lines = list(loop.table()) if isinstance(loop, SupervisionLoop) else []
    counts = [line.restarts for line in lines if child in (line.spec.id, line.process)]
    if counts != [times]:
        known = ", ".join(f"{line.spec.id!r}: {line.restarts}" for line in lines)
        raise AssertionError(f"child {child!r} was not restarted exactly {times} times; restarts are {{{known}}}")


def _lines(pid: AnyPid, label: str, indent: str) -> Iterator[str]:
    yield f"{indent}{label}{'' if pid.ready else ' (starting)'}"
    loop = pid._loop
    if isinstance(loop, SupervisionLoop):
        for child in loop.table():
            yield from _child_lines(child, f"{indent}  ")


def _child_lines(child: Child, indent: str) -> Iterator[str]:
    label = str(child.spec.id) if child.spec.label is None else child.spec.label
    process = child.process
    if child.shown() is RESTARTING:
        yield f"{indent}{label} (restarting)"
    elif process is None or not process.alive:
        yield f"{indent}{label} (not running)"
    elif child.stopping:
        yield f"{indent}{label} (stopping)"
    else:
        yield from _lines(process, label, indent)


def _shaped(shape: Shape, indent: str = "") -> Iterator[str]:
    if isinstance(shape, str):
        yield f"{indent}{shape}"
    elif isinstance(shape, Mapping):
        for label, below in shape.items():
            yield f"{indent}{label}"
            # a lone label stands for a list of one
            yield from _shaped(below, f"{indent}  ")
    elif shape is not None:
        for part in shape:
            yield from _shaped(part, indent)
