"""A state machine that handles every event with one function given from outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import supervisors as sup
from supervisors import EventType, keep_state
from supervisors.testing import settle

Handler = Callable[["Machine", EventType, Any, Any], Any]


class Machine(sup.GenStatem):
    """Handles every event with one function given from outside; logs (kind, name, content, state)."""

    callback_mode = "handle_event_function"

    def __init__(self, handler: Handler, *actions: Any, state: Any = "one") -> None:
        self.handler = handler
        self.first = (state, list(actions))
        self.data: list[tuple[Any, ...]] = []

    async def init(self) -> Any:
        return self.first

    async def handle_event(self, event_type: EventType, content: Any, state: Any) -> Any:
        name = event_type.kind if event_type.name is None else (event_type.kind, event_type.name)
        self.data.append((name, content, state))
        return self.handler(self, event_type, content, state)

    async def terminate(self, reason: object, state: Any) -> None:
        self.data.append(("terminate", reason, state))


class Entering(Machine):
    state_enter: ClassVar[bool] = True


def stay(*_: Any) -> Any:
    return keep_state()


def scripted(**by_content: Any) -> Handler:
    """Content of a cast (a string) → what to return, or a function giving it."""

    def handle(machine: Machine, event_type: EventType, content: Any, state: Any) -> Any:
        if event_type.kind == "cast" and content in by_content:
            result = by_content[content]
            return result(state) if callable(result) else result
        return keep_state()

    return handle


async def log_of(pid: sup.Pid[Any]) -> list[tuple[Any, ...]]:
    await settle()
    _, data = await sup.get_state(pid)
    return list(data)
