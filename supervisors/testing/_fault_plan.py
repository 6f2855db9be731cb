"""Faults by plan: which callback of which process crashes, hangs or is slow, and at which of its calls."""

from __future__ import annotations

import functools
import inspect
import math
import types
from collections.abc import Awaitable, Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any, Literal

import attrs
import trio

from supervisors.processes import process
from supervisors.processes.pid import AnyPid
from supervisors.servers.behaviour import Behaviour


class InjectedFault(Exception):
    """What a planned crash raises unless told otherwise."""

    def __init__(self, label: str, callback: str, call: int) -> None:
        super().__init__(f"planned: {callback} of {label!r}, call {call}")
        self.label = label
        self.callback = callback
        self.call = call


@attrs.frozen
class Fault:
    """One line of a plan; made by `crash`, `hang` and `slow`.

    ``label`` is that of the process, or a pattern as in a shell (``"worker-*"``). ``callback`` is the name of a method
    of its behaviour, for a state machine also that of a state; "init" is the start of a behaviour, "run" that of a
    plain process. The fault strikes at the call number ``nth`` (the first is 1) and at ``times`` calls in all,
    counted over all processes the label fits, restarts included.
    """

    label: str
    callback: str
    kind: Literal["crash", "hang", "slow"]
    nth: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    times: float = attrs.field(default=1, validator=attrs.validators.ge(1))
    seconds: float = math.inf
    shielded: bool = False
    error: Callable[[], BaseException] | None = None

    def fits(self, label: str, callback: str) -> bool:
        """Whether it is about this callback of a process of that label."""
        return callback == self.callback and fnmatchcase(label, self.label)

    async def strike(self, label: str, call: int) -> None:
        """Do it. A checkpoint unless it is a crash."""
        if self.kind == "crash":
            raise InjectedFault(label, self.callback, call) if self.error is None else self.error()
        with trio.CancelScope(shield=self.shielded):
            await trio.sleep(self.seconds)


def crash(
    label: str,
    callback: str,
    nth: int = 1,
    times: float = 1,
    error: Callable[[], BaseException] | None = None,
) -> Fault:
    """The callback raises before it does anything: ``error()``, or an `InjectedFault`."""
    return Fault(label, callback, "crash", nth, times, error=error)


def hang(label: str, callback: str, nth: int = 1, times: float = 1) -> Fault:
    """The callback never returns; it can be cancelled."""
    return Fault(label, callback, "hang", nth, times)


def slow(
    label: str, callback: str, seconds: float, nth: int = 1, times: float = math.inf, shielded: bool = False
) -> Fault:
    """The callback takes ``seconds`` longer, by default each time. ``shielded``: not even a kill makes it shorter."""
    return Fault(label, callback, "slow", nth, times, seconds, shielded)


@attrs.frozen
class Strike:
    """A fault that has struck: in which process, at which call."""

    fault: Fault
    pid: AnyPid
    call: int


class FaultPlan:
    """``with FaultPlan(crash("worker", "handle_call", nth=2)):`` makes faults happen in code that knows nothing of it.

    The faults strike processes that are started while the block is open, by whomever; the callback that is struck
    does nothing else. Once the block is left nothing strikes any more. A fault that never struck is an
    AssertionError at the end of a block that raises nothing: a label misspelt would otherwise test nothing
    (``strict=False`` allows it).
    """

    def __init__(self, *faults: Fault, strict: bool = True) -> None:
        self.faults = faults
        self.strict = strict
        self.strikes: list[Strike] = []
        """What has struck, in order."""
        self._calls = [0] * len(faults)
        self._open = False
        self._run_process = process.run_process

    def __enter__(self) -> FaultPlan:
        if self._open:
            raise RuntimeError("the plan is in force already")
        self._open = True
        self._run_process = process.run_process
        process.run_process = self._run
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: object, traceback: object) -> None:
        self._open = False
        process.run_process = self._run_process
        if exc_type is None and self.strict and self.never_struck:
            raise AssertionError("never struck: " + ", ".join(map(repr, self.never_struck)))

    @property
    def never_struck(self) -> list[Fault]:
        """The faults that have not happened yet."""
        struck = [strike.fault for strike in self.strikes]
        return [fault for fault in self.faults if fault not in struck]

    @trio.lowlevel.enable_ki_protection
    async def _run(self, pid: AnyPid, body: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
        """In the place of `run_process`: what it does, around a body with faults."""
        callbacks = {fault.callback for fault in self.faults if fault.fits(pid.label, fault.callback)}
        if callbacks:
            body = self._faulty(pid, body, callbacks)
        await self._run_process(pid, body, args)

    def _faulty(
        self, pid: AnyPid, body: Callable[..., Awaitable[object]], callbacks: Iterable[str]
    ) -> Callable[..., Awaitable[object]]:
        behaviour = getattr(body, "__self__", None)
        if isinstance(behaviour, type) and issubclass(behaviour, Behaviour):
            return self._subclass(pid, behaviour, callbacks).run_behaviour
        return self._callback(pid, "run", body)

    def _subclass(self, pid: AnyPid, behaviour: type[Behaviour], callbacks: Iterable[str]) -> type[Behaviour]:
        """The behaviour with its callbacks wrapped, under its own name."""
        wrapped: dict[str, Any] = {"__module__": behaviour.__module__, "__qualname__": behaviour.__qualname__}
        for name in callbacks:
            original = getattr(behaviour, name, None)
            if name == "init":
                # around the whole start: a supervisor's init need not be a coroutine
                start = behaviour.run_behaviour.__func__  # type: ignore[attr-defined]
                wrapped["run_behaviour"] = classmethod(self._callback(pid, "init", start))
            elif inspect.iscoroutinefunction(original):
                wrapped[name] = self._callback(pid, name, original)
        return types.new_class(behaviour.__name__, (behaviour,), exec_body=lambda body: body.update(wrapped))

    def _callback(self, pid: AnyPid, name: str, original: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
        @functools.wraps(original)
        async def callback(*args: Any, **kwargs: Any) -> Any:
            await self._strike(pid, name)
            return await original(*args, **kwargs)

        return callback

    async def _strike(self, pid: AnyPid, callback: str) -> None:
        for place, fault in enumerate(self.faults):
            if self._open and fault.fits(pid.label, callback):
                self._calls[place] += 1
                call = self._calls[place]
                if fault.nth <= call < fault.nth + fault.times:
                    self.strikes.append(Strike(fault, pid, call))
                    await fault.strike(pid.label, call)
