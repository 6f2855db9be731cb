"""One way to write a test for three interfaces.

A scenario is an ``async def`` over an :class:`Flavour`. On trio and asyncio it runs as it is. For the blocking
interface, every method is seen through :class:`AsyncView`, whose coroutines never suspend, so that the scenario runs
straight through on its thread; what runs at once runs on threads of its own.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import trio

import paddock.aio
import paddock.blocking

Scenario = Callable[..., Coroutine[Any, Any, Any]]


class Flavour(Protocol):
    """One of the three interfaces, and how to run a scenario on it."""

    name: str
    module: Any

    def open_runtime(self, *arguments: Any) -> Any: ...
    def run(self, scenario: Scenario, *arguments: Any) -> Any: ...
    async def at_once(self, *functions: Callable[[], Awaitable[Any]]) -> list[Any]: ...


class TrioFlavour:
    name = "trio"
    module = paddock

    def open_runtime(self, *arguments: Any) -> Any:
        return paddock.open_runtime(*arguments)

    def run(self, scenario: Scenario, *arguments: Any) -> Any:
        return trio.run(scenario, *arguments)

    async def at_once(self, *functions: Callable[[], Awaitable[Any]]) -> list[Any]:
        results: list[Any] = [None] * len(functions)

        async def run(number: int) -> None:
            results[number] = await functions[number]()

        async with trio.open_nursery() as nursery:
            for number in range(len(functions)):
                nursery.start_soon(run, number)
        return results


class AsyncioFlavour:
    name = "aio"
    module = paddock.aio

    def open_runtime(self, *arguments: Any) -> Any:
        return paddock.aio.open_runtime(*arguments)

    def run(self, scenario: Scenario, *arguments: Any) -> Any:
        return asyncio.run(scenario(*arguments))

    async def at_once(self, *functions: Callable[[], Awaitable[Any]]) -> list[Any]:
        return list(await asyncio.gather(*(function() for function in functions)))


class BlockingFlavour:
    name = "blocking"
    module = paddock.blocking

    def open_runtime(self, *arguments: Any) -> Any:
        return AsyncView(paddock.blocking.open_runtime(*arguments))

    def run(self, scenario: Scenario, *arguments: Any) -> Any:
        return _run_through(scenario(*arguments))

    async def at_once(self, *functions: Callable[[], Awaitable[Any]]) -> list[Any]:
        async def run(function: Callable[[], Awaitable[Any]]) -> Any:
            return await function()

        with ThreadPoolExecutor(len(functions)) as threads:
            return list(threads.map(lambda function: _run_through(run(function)), functions))


def _run_through(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("a coroutine of a blocking scenario was suspended")


class AsyncView:
    """An object of ``paddock.blocking`` with the methods that block as coroutine functions."""

    def __init__(self, viewed: Any) -> None:
        self._viewed = viewed

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._viewed, name)
        counterpart = getattr(getattr(paddock.aio, type(self._viewed).__name__, None), name, None)
        if inspect.iscoroutinefunction(counterpart):

            async def call(*arguments: Any, **keywords: Any) -> Any:
                return _view(value(*arguments, **keywords))

            return call
        if callable(value):
            return lambda *arguments, **keywords: _view(value(*arguments, **keywords))
        return _view(value)

    async def __aenter__(self) -> Any:
        return _view(self._viewed.__enter__())

    async def __aexit__(self, *error: Any) -> Any:
        return self._viewed.__exit__(*error)

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Any:
        try:
            return next(self._viewed)
        except StopIteration:
            raise StopAsyncIteration from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AsyncView) and self._viewed is other._viewed

    def __hash__(self) -> int:
        return hash(self._viewed)

    def __repr__(self) -> str:
        return repr(self._viewed)


def _view(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _view(item) for key, item in value.items()}
    return AsyncView(value) if type(value).__module__ == "paddock.blocking" else value


FLAVOURS: tuple[Flavour, ...] = (TrioFlavour(), AsyncioFlavour(), BlockingFlavour())
