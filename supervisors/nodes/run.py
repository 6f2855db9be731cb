"""A program that is a node: `run` opens it, and turns Ctrl-C into an orderly stop and exit code 130."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio

from supervisors.reasons import is_interrupt

from .node import INTERRUPTED, open_node
from .stall_watch import STALL_SECONDS

T = TypeVar("T")


def run(
    main: Callable[..., Awaitable[T]],
    *args: Any,
    label: str = "node",
    stop_seconds: float = math.inf,
    stall_seconds: float = STALL_SECONDS,
    clock: trio.abc.Clock | None = None,
) -> T:
    """Run ``await main(node, *args)`` inside a new node and return its value; for the outermost level of a program.

    Ctrl-C at any time, while processes start, run or stop, stops everything in reverse order and then raises
    SystemExit(130). A second Ctrl-C, or the end of ``stop_seconds``, kills what is left. What resists even that, which
    trio cannot end, is named in the log and left behind: the interpreter is halted, without clean-up, as OTP's is.

    Any other exception of ``main`` leaves it as it is. ``stall_seconds`` is as in `open_node`.
    """

    async def program() -> T:
        async with open_node(label, stop_seconds=stop_seconds, stall_seconds=stall_seconds) as node:
            node.halts = True
            return await main(node, *args)

    try:
        return trio.run(program, clock=clock)
    except BaseException as exc:
        if is_interrupt(exc):
            raise SystemExit(INTERRUPTED) from None
        raise
