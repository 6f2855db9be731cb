"""The errors of this package. Each carries its facts as attributes and says what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .reasons import Reason

if TYPE_CHECKING:
    from .processes.pid import Pid


class SupervisorsError(Exception):
    """Base class of all errors raised by this package (`Exit` apart, which is a signal)."""


class NoProc(SupervisorsError, LookupError):
    """The process is dead, or nothing is registered under the name."""

    def __init__(self, target: object) -> None:
        super().__init__(f"no such process: {target!r}; it has ended or was never registered")
        self.target = target


class NotAServer(SupervisorsError, TypeError):
    """A plain process was asked what only the loop of a server can answer."""

    def __init__(self, target: object) -> None:
        super().__init__(f"{target!r} is a plain process: it has no loop that answers system messages; use tree()")
        self.target = target


class CallTimeout(SupervisorsError, TimeoutError):
    """No answer within the time given. The other process lives on, and its late reply is dropped."""

    def __init__(self, target: object, timeout: float) -> None:
        super().__init__(f"no answer from {target!r} within {timeout:g} s; it may be busy: give more time")
        self.target = target
        self.timeout = timeout


class CallingSelf(SupervisorsError):
    """A process would wait for itself for ever."""

    def __init__(self, pid: object) -> None:
        super().__init__(f"{pid!r} waits for itself; call the function directly, or cast")
        self.pid = pid


class Deadlock(SupervisorsError):
    """The call would close a circle of processes, each waiting for the next."""

    def __init__(self, chain: Sequence[Pid[Any]]) -> None:
        circle = " -> ".join(repr(pid) for pid in chain)
        super().__init__(f"call refused, it would never be answered: {circle}; make one of these a cast")
        self.chain = tuple(chain)


class ServerExited(SupervisorsError):
    """The server ended before it answered; ``reason`` is its exit reason."""

    def __init__(self, target: object, reason: Reason) -> None:
        super().__init__(f"{target!r} ended before it answered: {reason!r}")
        self.target = target
        self.reason = reason


class DuplicateRequest(SupervisorsError, ValueError):
    """The request is in a collection already, or somebody waits for it."""

    def __init__(self, request: object) -> None:
        super().__init__(f"{request!r} is waited for already; each request goes into one collection, once")
        self.request = request


class NoRequest(SupervisorsError, LookupError):
    """The collection of requests is empty."""

    def __init__(self) -> None:
        super().__init__("no request left to wait for; add one, or look at len() first")


class RequestAbandoned(SupervisorsError):
    """The request was given up by `RequestId.abandon`, its answer is lost."""

    def __init__(self, target: object) -> None:
        super().__init__(f"the request to {target!r} was abandoned; send it again")
        self.target = target


class MailboxFull(SupervisorsError):
    """The bounded mailbox of the target has no room."""

    def __init__(self, target: object, limit: int) -> None:
        super().__init__(f"mailbox of {target!r} holds its limit of {limit} messages; slow down, or call")
        self.target = target
        self.limit = limit


class BadReturnValue(SupervisorsError):
    """A callback returned what it may not return."""

    def __init__(self, where: str, value: object) -> None:
        super().__init__(f"{where} returned {value!r}, which it may not return")
        self.where = where
        self.value = value


class BadAction(SupervisorsError):
    """A state machine's callback asked for an action that is not allowed there."""

    def __init__(self, where: str, action: object) -> None:
        super().__init__(f"{where} asked for {action!r}, which is not allowed there")
        self.where = where
        self.action = action


class StartFailed(SupervisorsError):
    """A process did not come up. ``reason`` says why; ``spec`` is the child's spec under a supervisor."""

    def __init__(self, reason: Reason, spec: object = None) -> None:
        what = "process" if spec is None else f"child {getattr(spec, 'id', spec)!r}"
        super().__init__(f"{what} did not start: {reason!r}")
        self.reason = reason
        self.spec = spec


class StartTimeout(StartFailed, TimeoutError):
    """A process was not ready in time; it has been killed."""

    def __init__(self, timeout: float) -> None:
        super().__init__(f"not ready within {timeout:g} s")
        self.timeout = timeout


class AlreadyStarted(SupervisorsError):
    """A process of that name or child id runs already, as ``pid``."""

    def __init__(self, pid: Pid[Any]) -> None:
        super().__init__(f"already started as {pid!r}")
        self.pid = pid


class AlreadyRegistered(SupervisorsError):
    """The key belongs to ``pid``."""

    def __init__(self, pid: Pid[Any]) -> None:
        super().__init__(f"already registered by {pid!r}")
        self.pid = pid


class AlreadyPresent(SupervisorsError):
    """The supervisor knows the child id, but the child does not run: restart or delete it."""

    def __init__(self, child_id: object) -> None:
        super().__init__(f"child {child_id!r} is present and not running; restart it or delete it")
        self.child_id = child_id


class ChildRunning(SupervisorsError):
    """The child runs, so it can be neither restarted nor deleted by hand: terminate it first."""

    def __init__(self, child_id: object) -> None:
        super().__init__(f"child {child_id!r} is running; terminate it first")
        self.child_id = child_id


class ChildRestarting(SupervisorsError):
    """The supervisor is restarting the child at this moment."""

    def __init__(self, child_id: object) -> None:
        super().__init__(f"child {child_id!r} is being restarted; terminate it first, or wait")
        self.child_id = child_id


class NotFound(SupervisorsError, LookupError):
    """The supervisor has no such child."""

    def __init__(self, child: object) -> None:
        super().__init__(f"no such child: {child!r}")
        self.child = child


class MaxChildren(SupervisorsError):
    """The dynamic supervisor has as many children as it may have."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the supervisor has its limit of {limit} children; wait for one to end")
        self.limit = limit


class NotJoined(SupervisorsError, LookupError):
    """The process is not a member of the group."""

    def __init__(self, group: object, pid: object) -> None:
        super().__init__(f"{pid!r} is not a member of group {group!r}")
        self.group = group
        self.pid = pid


class NotOwner(SupervisorsError, ValueError):
    """Only the process that made the reference may undo it."""

    def __init__(self, ref: object) -> None:
        super().__init__(f"{ref!r} belongs to another process")
        self.ref = ref


class BadChildSpec(SupervisorsError, ValueError):
    """A field of a child spec is wrong; ``field`` names it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"child spec, {field}: {message}")
        self.field = field


class BadFlags(SupervisorsError, ValueError):
    """A supervisor flag is wrong; ``field`` names it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"supervisor flags, {field}: {message}")
        self.field = field


class NodeStopped(SupervisorsError, RuntimeError):
    """The node takes no new process: it is not open, or its block has ended."""

    def __init__(self, label: str) -> None:
        super().__init__(f"node {label!r} is not open; start processes inside `async with open_node()`")
        self.label = label


class BadApplication(SupervisorsError, ValueError):
    """A field of an application is wrong; ``field`` names it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"application, {field}: {message}")
        self.field = field


class UnknownApplication(SupervisorsError, LookupError):
    """No application of that name was given to `Applications`."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no application {name!r} is known; give it to Applications")
        self.name = name


class NotStarted(SupervisorsError):
    """The application does not run, and has to."""

    def __init__(self, name: str) -> None:
        super().__init__(f"application {name!r} does not run; start it first, or use ensure_all_started")
        self.name = name


class ApplicationFailed(StartFailed):
    """An application did not come up; ``reason`` says why."""

    def __init__(self, name: str, reason: Reason) -> None:
        super().__init__(reason, name)
        self.args = (f"application {name!r} did not start: {reason!r}",)
        self.name = name


class ApplicationEnded(SupervisorsError):
    """An application without which the node may not go on has ended, and the node with it."""

    def __init__(self, name: str, reason: Reason) -> None:
        super().__init__(f"application {name!r} ended, and the node with it: {reason!r}")
        self.name = name
        self.reason = reason
