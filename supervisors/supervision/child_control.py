"""What one asks of a supervisor."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any, Literal, TypeAlias

import attrs

from supervisors.calls.call import call
from supervisors.processes.pid import Pid, Target

from .child_spec import ChildCounts, ChildInfo, ChildSpec, as_spec


@attrs.frozen(eq=False)
class StartChild:
    spec: ChildSpec
    context: Any = None


@attrs.frozen
class ChildCommand:
    """A command about one child, named by id or pid."""

    kind: Literal["terminate", "restart", "delete"]
    child: Any


@attrs.frozen
class ChildQuery:
    """A question; answered at once, whatever the supervisor is doing."""

    kind: Literal["which_children", "which_child", "count_children", "get_childspec"]
    child: Any = None


Command: TypeAlias = StartChild | ChildCommand


async def start_child(supervisor: Target, spec: Any, timeout: float = math.inf) -> Pid[Any]:
    """Start a child under the supervisor and wait until it is ready; returns its pid, or IGNORE.

    The supervisor's own task starts it, in a copy of this task's context: cancelling the wait does not undo the
    start. Raises StartFailed, AlreadyStarted, AlreadyPresent, MaxChildren, BadChildSpec, and what `call` raises.
    """
    from contextvars import copy_context

    pid: Pid[Any] = await call(supervisor, StartChild(as_spec(spec), copy_context()), timeout)
    return pid


async def terminate_child(supervisor: Target, child: Hashable, timeout: float = math.inf) -> None:
    """Stop a child for good, as its spec says. ``child`` is an id; on a dynamic supervisor, a pid.

    A static supervisor keeps the spec (temporary children excepted). NotFound when there is no such child.
    """
    await call(supervisor, ChildCommand("terminate", child), timeout)


async def restart_child(supervisor: Target, child: Hashable, timeout: float = math.inf) -> Pid[Any]:
    """Start a stopped child again. Raises ChildRunning, ChildRestarting, NotFound, StartFailed."""
    pid: Pid[Any] = await call(supervisor, ChildCommand("restart", child), timeout)
    return pid


async def delete_child(supervisor: Target, child: Hashable, timeout: float = math.inf) -> None:
    """Forget the spec of a stopped child. Raises ChildRunning, ChildRestarting, NotFound."""
    await call(supervisor, ChildCommand("delete", child), timeout)


async def which_children(supervisor: Target, timeout: float = 5.0) -> list[ChildInfo]:
    """The children, newest first."""
    children: list[ChildInfo] = await call(supervisor, ChildQuery("which_children"), timeout)
    return children


async def which_child(supervisor: Target, child: Hashable, timeout: float = 5.0) -> ChildInfo:
    """One child, by id (dynamic supervisors: by pid). NotFound when there is none."""
    info: ChildInfo = await call(supervisor, ChildQuery("which_child", child), timeout)
    return info


async def count_children(supervisor: Target, timeout: float = 5.0) -> ChildCounts:
    """How many specs, running children, supervisors and workers."""
    counts: ChildCounts = await call(supervisor, ChildQuery("count_children"), timeout)
    return counts


async def get_childspec(supervisor: Target, child: Hashable, timeout: float = 5.0) -> ChildSpec:
    """The full spec of a child, by id or pid. NotFound when there is none."""
    spec: ChildSpec = await call(supervisor, ChildQuery("get_childspec", child), timeout)
    return spec
