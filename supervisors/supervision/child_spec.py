"""Child specs and supervisor flags: values, checked field by field."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias

import attrs

from supervisors.errors import BadChildSpec, BadFlags
from supervisors.processes.pid import Pid, function_label
from supervisors.servers.behaviour import Behaviour

from .backoff import Backoff


class ShutdownMode(enum.Enum):
    """A shutdown that is not a number of seconds."""

    BRUTAL_KILL = "brutal_kill"

    def __repr__(self) -> str:
        return self.name


BRUTAL_KILL: Final = ShutdownMode.BRUTAL_KILL
"""End the child without asking: its ``terminate`` does not run, its ``finally`` blocks do."""

Restart: TypeAlias = Literal["permanent", "transient", "temporary"]
ChildType: TypeAlias = Literal["worker", "supervisor"]
Strategy: TypeAlias = Literal["one_for_one", "one_for_all", "rest_for_one"]
AutoShutdown: TypeAlias = Literal["never", "any_significant", "all_significant"]
Start: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]]

RESTARTS: Final = ("permanent", "transient", "temporary")
TYPES: Final = ("worker", "supervisor")
STRATEGIES: Final = ("one_for_one", "one_for_all", "rest_for_one")
AUTO_SHUTDOWNS: Final = ("never", "any_significant", "all_significant")

WORKER_SHUTDOWN: Final = 5.0
"""Seconds a worker gets to end by itself, unless its spec says otherwise."""


def _is_seconds(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)


def as_start(start: Any) -> Any:
    """(function, args, kwargs) from that, from less of it, or from the function alone."""
    if isinstance(start, (tuple, list)):
        parts = tuple(start)
        if len(parts) == 1:
            return (parts[0], (), {})
        if len(parts) == 2:
            return (parts[0], parts[1], {})
        return parts
    return (start, (), {})


@attrs.frozen(kw_only=True)
class ChildSpec:
    """How a supervisor starts, restarts and stops one child.

    ``start`` is (behaviour class or async function, args, kwargs). ``shutdown`` is seconds, inf or BRUTAL_KILL; its
    default is 5 seconds for a worker and inf for a supervisor. ``significant`` children count for auto-shutdown.
    ``name`` is a key of the node's registry, or a `Via`. ``backoff`` is the supervisor's, unless it is a `Backoff` of
    the child's own, or None for none. Raises BadChildSpec, whose ``field`` names what is wrong.
    """

    id: Hashable
    start: Start = attrs.field(converter=as_start)
    restart: Restart = "permanent"
    type: ChildType = attrs.field(default=attrs.Factory(lambda self: _type_of(self.start), takes_self=True))
    shutdown: float | ShutdownMode = attrs.field(
        default=attrs.Factory(lambda self: math.inf if self.type == "supervisor" else WORKER_SHUTDOWN, takes_self=True)
    )
    significant: bool = False
    name: Hashable = None
    label: str | None = None
    backoff: Backoff | Literal["inherit"] | None = "inherit"

    def __attrs_post_init__(self) -> None:
        if self.id is None:
            raise BadChildSpec("id", "is missing")
        try:
            hash(self.id)
        except TypeError:
            raise BadChildSpec("id", f"{self.id!r} is not hashable") from None
        try:
            hash(self.name)
        except TypeError:
            raise BadChildSpec("name", f"{self.name!r} is not hashable") from None
        if self.label is not None and not isinstance(self.label, str):
            raise BadChildSpec("label", f"{self.label!r} is not a string")
        if len(self.start) != 3:
            raise BadChildSpec("start", f"{self.start!r} is not (class or async function, args, kwargs)")
        function, args, kwargs = self.start
        if not callable(function):
            raise BadChildSpec("start", f"{function!r} is neither a behaviour class nor an async function")
        if isinstance(function, type) and not issubclass(function, Behaviour):
            raise BadChildSpec("start", f"class {function.__name__} is not a behaviour")
        if not isinstance(args, tuple) or not isinstance(kwargs, Mapping):
            raise BadChildSpec("start", "args must be a tuple and kwargs a mapping")
        if self.restart not in RESTARTS:
            raise BadChildSpec("restart", f"{self.restart!r} is none of {', '.join(RESTARTS)}")
        if self.type not in TYPES:
            raise BadChildSpec("type", f"{self.type!r} is none of {', '.join(TYPES)}")
        if self.shutdown is not BRUTAL_KILL and (not _is_seconds(self.shutdown) or self.shutdown < 0):
            raise BadChildSpec("shutdown", f"{self.shutdown!r} is neither seconds >= 0, inf nor BRUTAL_KILL")
        if not isinstance(self.significant, bool):
            raise BadChildSpec("significant", f"{self.significant!r} is not a bool")
        if self.backoff is not None and self.backoff != "inherit" and not isinstance(self.backoff, Backoff):
            raise BadChildSpec("backoff", f"{self.backoff!r} is neither a Backoff, None nor 'inherit'")

    @property
    def shutdown_seconds(self) -> float:
        """Seconds between being asked and being killed; 0 for BRUTAL_KILL."""
        return 0.0 if isinstance(self.shutdown, ShutdownMode) else float(self.shutdown)

    @classmethod
    def from_mapping(cls, fields: Mapping[str, Any]) -> ChildSpec:
        """A spec from a mapping of its fields. Unknown keys are refused, missing ones are named."""
        known = {field.name for field in attrs.fields(cls)}
        for key in fields:
            if key not in known:
                raise BadChildSpec(str(key), f"is no field of a child spec; those are {', '.join(sorted(known))}")
        for required in ("id", "start"):
            if required not in fields:
                raise BadChildSpec(required, "is missing")
        return cls(**fields)


def _type_of(start: Any) -> ChildType:
    function = start[0] if start else None
    if isinstance(function, type) and issubclass(function, Behaviour):
        return function.child_type
    return "worker"


def child(
    start: Callable[..., Any],
    *args: Any,
    id: Hashable = None,
    restart: Restart = "permanent",
    shutdown: float | ShutdownMode | None = None,
    significant: bool = False,
    name: Hashable = None,
    label: str | None = None,
    backoff: Backoff | Literal["inherit"] | None = "inherit",
    **kwargs: Any,
) -> ChildSpec:
    """A child spec in one line; ``args`` and ``kwargs`` go to the class or function.

    ``id`` is by default the name, or the name of the class or function; type and shutdown follow from the class.
    """
    if id is None:
        id = name if name is not None else function_label(start)
    fields: dict[str, Any] = {
        "id": id,
        "start": (start, args, kwargs),
        "restart": restart,
        "significant": significant,
        "name": name,
        "label": label,
        "backoff": backoff,
    }
    if shutdown is not None:
        fields["shutdown"] = shutdown
    return ChildSpec(**fields)


def as_spec(spec: object) -> ChildSpec:
    """A ChildSpec, a mapping of its fields, or a bare behaviour class; BadChildSpec for anything else."""
    if isinstance(spec, ChildSpec):
        return spec
    if isinstance(spec, Mapping):
        return ChildSpec.from_mapping(spec)
    if isinstance(spec, type) and issubclass(spec, Behaviour):
        return child(spec)
    raise BadChildSpec("spec", f"{spec!r} is not a child spec")


@attrs.frozen
class SupervisorFlags:
    """How a supervisor restarts its children.

    More than ``intensity`` restarts within ``period`` seconds (inclusive, floats, one window for all children) end
    the supervisor. ``backoff`` has it wait before each restart; by default, as in OTP, it does not. Raises BadFlags,
    whose ``field`` names what is wrong.
    """

    strategy: Strategy = "one_for_one"
    intensity: int = 1
    period: float = 5.0
    auto_shutdown: AutoShutdown = "never"
    backoff: Backoff | None = None

    def __attrs_post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise BadFlags("strategy", f"{self.strategy!r} is none of {', '.join(STRATEGIES)}")
        if isinstance(self.intensity, bool) or not isinstance(self.intensity, int) or self.intensity < 0:
            raise BadFlags("intensity", f"{self.intensity!r} is not a whole number >= 0")
        if not _is_seconds(self.period) or not 0 < self.period < math.inf:
            raise BadFlags("period", f"{self.period!r} is not a finite number of seconds > 0")
        if self.auto_shutdown not in AUTO_SHUTDOWNS:
            raise BadFlags("auto_shutdown", f"{self.auto_shutdown!r} is none of {', '.join(AUTO_SHUTDOWNS)}")
        if self.backoff is not None and not isinstance(self.backoff, Backoff):
            raise BadFlags("backoff", f"{self.backoff!r} is neither a Backoff nor None")


def check_significant(spec: ChildSpec, auto_shutdown: AutoShutdown) -> None:
    """Refuse a significant child that could never shut its supervisor down."""
    if not spec.significant:
        return
    if spec.restart == "permanent":
        raise BadChildSpec("significant", "bad combination: a permanent child is always restarted")
    if auto_shutdown == "never":
        raise BadChildSpec("significant", "bad combination: the supervisor's auto_shutdown is never")


def check_specs(specs: Iterable[object], auto_shutdown: AutoShutdown) -> list[ChildSpec]:
    """The specs of a supervisor's init, checked; ids must differ."""
    checked: list[ChildSpec] = []
    seen: set[Hashable] = set()
    for raw in specs:
        spec = as_spec(raw)
        if spec.id in seen:
            raise BadChildSpec("id", f"{spec.id!r} is there twice")
        seen.add(spec.id)
        check_significant(spec, auto_shutdown)
        checked.append(spec)
    return checked


class ChildState(enum.Enum):
    """What stands in the place of a pid while a child is being restarted."""

    RESTARTING = "restarting"

    def __repr__(self) -> str:
        return self.name


RESTARTING: Final = ChildState.RESTARTING


@attrs.frozen
class ChildInfo:
    """One line of `which_children`. ``pid`` is None for a child that does not run."""

    id: Hashable
    pid: Pid[Any] | ChildState | None
    type: ChildType
    restart: Restart


@attrs.frozen
class ChildCounts:
    """`count_children`: all specs, running processes, and how many specs are supervisors and workers."""

    specs: int
    active: int
    supervisors: int
    workers: int
