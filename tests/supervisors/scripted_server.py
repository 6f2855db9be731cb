"""A generic server whose callbacks are given from outside."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio
from actors import Broken

import supervisors as sup


class Scripted(sup.GenServer):
    """Every callback is a function given from outside; what happens is logged."""

    def __init__(self, **callbacks: Callable[..., Any]) -> None:
        self.callbacks = callbacks
        self.log: list[Any] = []

    async def _run(self, name: str, default: Any, *args: Any) -> Any:
        self.log.append((name, *args[:1]))
        if name not in self.callbacks:
            return default
        result = self.callbacks[name](self, *args)
        return await result if isinstance(result, Awaitable) else result

    async def init(self) -> Any:
        return await self._run("init", None)

    async def handle_call(self, request: Any, from_: sup.From) -> Any:
        return await self._run("call", sup.Reply(request), request, from_)

    async def handle_cast(self, message: Any) -> Any:
        return await self._run("cast", None, message)

    async def handle_info(self, message: Any) -> Any:
        return await self._run("info", None, message)

    async def handle_continue(self, content: Any) -> Any:
        return await self._run("continue", None, content)

    async def handle_timeout(self) -> Any:
        return await self._run("silence", None)

    async def terminate(self, reason: Any) -> None:
        await self._run("terminate", None, reason)


def crashing(*_: Any) -> Any:
    raise Broken("handler")


async def wait(*_: Any) -> None:
    await trio.sleep_forever()


async def state_of(pid: sup.Pid[Scripted]) -> Scripted:
    server: Scripted = await sup.get_state(pid)
    return server
