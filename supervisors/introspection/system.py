"""System messages: look into a running server, suspend it, replace its state, observe what it handles.

They overtake the queue, are answered by the loop of the server and not by the server, and work on a suspended one.
Pids and names will do. All raise like `call`, and NotAServer for a plain process, which has no such loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

import attrs
import trio

from supervisors.calls.call import ANSWERED, FAILED, From, call_system
from supervisors.errors import NotAServer
from supervisors.processes.mailbox import SYSTEM
from supervisors.processes.pid import AnyPid, Pid, Target, live

from .debug import Debug, DebugEvent, DebugFunction, ServerStatistics

if TYPE_CHECKING:
    from supervisors.servers.gen_server import GenServer
    from supervisors.servers.gen_statem import GenStatem

ServerT = TypeVar("ServerT", bound="GenServer")


class Loop(Protocol):
    """What a server's loop offers to system messages, and to the snapshot of the tree."""

    pid: AnyPid
    suspended: bool
    stopping: bool
    debug: Debug | None

    def state(self) -> object: ...
    def replace(self, new: Any) -> object: ...
    def status(self) -> dict[str, object]: ...
    def show_message(self, message: Any) -> object: ...


@attrs.frozen
class SystemRequest:
    """What is asked of the server's loop, not of the server. What it raises is raised at the one who asked."""

    act: Callable[[Loop], object]


def answer_system(loop: Loop, request: SystemRequest, from_: From) -> None:
    """Answer one system request. Synchronous; an error in it fails its caller only."""
    try:
        value = request.act(loop)
    except Exception as exc:
        from_.resolve_with(FAILED, exc)
        del from_  # the traceback holds this frame, and the slot the error
    else:
        from_.resolve_with(ANSWERED, value)


async def _ask(target: Target, act: Callable[[Loop], object], timeout: float) -> Any:
    if not live(target)._stops_by_message:
        raise NotAServer(target)
    return await call_system(SYSTEM, target, SystemRequest(act), timeout)


# -- state ------------------------------------------------------------------------------------------------------


@overload
async def get_state(target: Pid[ServerT], timeout: float = 5.0) -> ServerT: ...
@overload
async def get_state(target: Pid[GenStatem], timeout: float = 5.0) -> tuple[Any, Any]: ...
@overload
async def get_state(target: Target, timeout: float = 5.0) -> Any: ...
async def get_state(target: Target, timeout: float = 5.0) -> Any:
    """The state of a server: the GenServer object itself, or ``(state, data)`` of a GenStatem. For debugging.

    Overtakes the queue; works on a suspended server. Raises like `call`.
    """
    return await _ask(target, lambda loop: loop.state(), timeout)


@overload
async def replace_state(
    target: Pid[ServerT], replacer: Callable[[ServerT], ServerT], timeout: float = 5.0
) -> ServerT: ...
@overload
async def replace_state(target: Target, replacer: Callable[[Any], Any], timeout: float = 5.0) -> Any: ...
async def replace_state(target: Target, replacer: Callable[[Any], Any], timeout: float = 5.0) -> Any:
    """Put ``replacer(state)`` in the place of the state and return it.

    What the replacer raises is raised here and changes nothing. TypeError for a supervisor.
    """
    return await _ask(target, lambda loop: loop.replace(replacer(loop.state())), timeout)


async def get_status(target: Target, timeout: float = 5.0) -> dict[str, object]:
    """What the server's loop knows: module, queue length, suspended or not, the state as `format_status` shows it,
    the log; of a state machine also its events, what is postponed, and its timers."""
    status: dict[str, object] = await _ask(target, lambda loop: loop.status(), timeout)
    return status


# -- suspending -------------------------------------------------------------------------------------------------


async def suspend(target: Target, timeout: float = 5.0) -> None:
    """Have the server handle system messages only, until `resume`. Suspending twice is as good as once.

    TypeError for a supervisor: suspended it would restart nobody.
    """

    def act(loop: Loop) -> None:
        if loop.pid.is_supervisor:
            raise TypeError(f"{loop.pid!r} is a supervisor: suspended it would restart nobody; suspend its children")
        loop.suspended = True

    await _ask(target, act, timeout)


async def resume(target: Target, timeout: float = 5.0) -> None:
    """End `suspend`: what was queued is handled now."""

    def act(loop: Loop) -> None:
        loop.suspended = False

    await _ask(target, act, timeout)


# -- observing --------------------------------------------------------------------------------------------------


async def _observe(target: Target, change: Callable[[Debug], object], timeout: float) -> None:
    """Change who observes a server; a server that nobody observes has no `Debug`."""

    def act(loop: Loop) -> None:
        debug = Debug(loop) if loop.debug is None else loop.debug
        change(debug)
        loop.debug = None if debug.idle else debug

    await _ask(target, act, timeout)


async def trace(target: Target, to: bool | Callable[[DebugEvent], object] = True, timeout: float = 5.0) -> None:
    """Show each event of the server as it happens: on the logger ``supervisors.trace`` (messages as `format_message`
    gives them), or to the function ``to``; False ends it. A function that raises is dropped."""
    if not isinstance(to, bool) and not callable(to):
        raise TypeError(f"trace goes to the log (True), to nobody (False) or to a function, not {to!r}")

    def change(debug: Debug) -> None:
        debug.tracer = to

    await _observe(target, change, timeout)


async def log_events(target: Target, size: int = 10, timeout: float = 5.0) -> None:
    """Have the server keep its last ``size`` events, for `logged_events`, status and crash report; 0 ends it.

    Events hold the messages themselves. Another size keeps the newest of those there are.
    """
    if size < 0:
        raise ValueError(f"size must be a number of events >= 0, not {size}")

    def change(debug: Debug) -> None:
        debug.ring = deque(debug.ring or (), size) if size else None

    await _observe(target, change, timeout)


async def logged_events(target: Target, timeout: float = 5.0) -> tuple[DebugEvent, ...]:
    """The events kept by `log_events`, oldest first; none when it is off."""
    events: tuple[DebugEvent, ...] = await _ask(target, logged, timeout)
    return events


def logged(loop: Loop) -> tuple[DebugEvent, ...]:
    """The events that a loop keeps."""
    debug = loop.debug
    return tuple(debug.ring) if debug is not None and debug.ring is not None else ()


def shown_log(loop: Loop) -> tuple[str, ...]:
    """The same in words, as status and crash report have it, the messages as the server wants them shown."""
    return tuple(f"{event.at:.6f} {event.describe(loop.show_message)}" for event in logged(loop))


async def collect_statistics(target: Target, on: bool = True, timeout: float = 5.0) -> None:
    """Begin to count what the server handles, anew when it was counted already; False ends it."""

    def change(debug: Debug) -> None:
        debug.counts = {} if on else None
        debug.since = trio.current_time()

    await _observe(target, change, timeout)


async def get_statistics(target: Target, timeout: float = 5.0) -> ServerStatistics | None:
    """What was counted since `collect_statistics`; None when that is off."""

    def act(loop: Loop) -> ServerStatistics | None:
        return None if loop.debug is None else loop.debug.statistics()

    statistics: ServerStatistics | None = await _ask(target, act, timeout)
    return statistics


async def install_debug(target: Target, function: DebugFunction, timeout: float = 5.0) -> None:
    """Call ``function(event, state)`` for each event, synchronously in the server's task.

    It is dropped when it returns True or raises (which is logged); the server lives. Installing it twice is as good
    as once.
    """

    def change(debug: Debug) -> None:
        if function not in debug.functions:
            debug.functions.append(function)

    await _observe(target, change, timeout)


async def remove_debug(target: Target, function: DebugFunction, timeout: float = 5.0) -> None:
    """Undo `install_debug`; nothing happens when the function is not installed."""

    def change(debug: Debug) -> None:
        if function in debug.functions:
            debug.functions.remove(function)

    await _observe(target, change, timeout)


async def no_debug(target: Target, timeout: float = 5.0) -> None:
    """End trace, log and statistics and remove all debug functions."""

    def act(loop: Loop) -> None:
        loop.debug = None

    await _ask(target, act, timeout)
