"""System messages: look into a running server, suspend it, replace its state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias

import attrs

from ._call import ANSWERED, FAILED, From, call_system
from ._mailbox import SYSTEM
from ._pid import Target

SystemKind: TypeAlias = Literal["get_state", "replace_state", "get_status", "suspend", "resume"]


@attrs.frozen
class SystemRequest:
    """What is asked of the server's loop, not of the server."""

    kind: SystemKind
    replacer: Callable[[Any], Any] | None = None


class Loop(Protocol):
    """What a server's loop offers to system messages."""

    suspended: bool

    def state(self) -> object: ...
    def replace(self, new: Any) -> object: ...
    def status(self) -> dict[str, object]: ...


def answer_system(loop: Loop, request: SystemRequest, from_: From) -> None:
    """Answer one system request. Synchronous; a replacer that raises changes nothing and fails its caller only."""
    if request.kind == "suspend":
        loop.suspended = True
        from_.resolve_with(ANSWERED, None)
    elif request.kind == "resume":
        loop.suspended = False
        from_.resolve_with(ANSWERED, None)
    elif request.kind == "get_state":
        from_.resolve_with(ANSWERED, loop.state())
    elif request.kind == "get_status":
        from_.resolve_with(ANSWERED, loop.status())
    else:
        assert request.replacer is not None
        try:
            state = loop.replace(request.replacer(loop.state()))
        except Exception as exc:
            from_.resolve_with(FAILED, exc)
        else:
            from_.resolve_with(ANSWERED, state)


async def get_state(target: Target, timeout: float = 5.0) -> Any:
    """The state of a server: the GenServer object itself, or ``(state, data)`` of a GenStatem. For debugging.

    Overtakes the queue; works on a suspended server. Raises like `call`.
    """
    return await call_system(SYSTEM, target, SystemRequest("get_state"), timeout)


async def replace_state(target: Target, replacer: Callable[[Any], Any], timeout: float = 5.0) -> Any:
    """Put ``replacer(state)`` in the place of the state and return it; what the replacer raises is raised here."""
    return await call_system(SYSTEM, target, SystemRequest("replace_state", replacer), timeout)


async def get_status(target: Target, timeout: float = 5.0) -> dict[str, object]:
    """What the server's loop knows: module, queue length, suspended or not, formatted state."""
    status: dict[str, object] = await call_system(SYSTEM, target, SystemRequest("get_status"), timeout)
    return status


async def suspend(target: Target, timeout: float = 5.0) -> None:
    """Have the server handle system messages only, until `resume`. Suspending twice is as good as once."""
    await call_system(SYSTEM, target, SystemRequest("suspend"), timeout)


async def resume(target: Target, timeout: float = 5.0) -> None:
    """End `suspend`: what was queued is handled now."""
    await call_system(SYSTEM, target, SystemRequest("resume"), timeout)
