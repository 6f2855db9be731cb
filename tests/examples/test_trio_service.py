"""The trio service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio

import paddock


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[paddock.Model]:
    """The models that are loaded meanwhile, on one thread and in this process."""
    models: list[paddock.Model] = []
    load = paddock.Runtime.load_model

    async def load_small(self: paddock.Runtime, *arguments: Any, **options: Any) -> paddock.Model:
        model = await load(self, *arguments, **options, n_threads=1, isolation="thread")
        models.append(model)
        return model

    monkeypatch.setattr(paddock.Runtime, "load_model", load_small)
    return models


@asynccontextmanager
async def serving(service: ModuleType, model: Path) -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:
        yield await nursery.start(partial(service.serve, 0, str(model)))
        nursery.cancel_scope.cancel()


async def read_all(stream: trio.SocketStream) -> bytes:
    return b"".join([piece async for piece in stream])


async def test_each_line_is_answered_with_a_reply_and_an_empty_line(
    example: Callable[[str], ModuleType], scripted_model: Callable[..., Path], loaded: list[paddock.Model]
) -> None:
    async with serving(example("trio_service"), scripted_model(b"Yes.")) as port:
        async with await trio.open_tcp_stream("127.0.0.1", port) as client:
            await client.send_all(b"Are you there?\nReally?\n\n")
            await client.send_eof()
            first, second, third, rest = (await read_all(client)).split(b"\n\n")
        assert (first, second, rest) == (b"Yes.", b"Yes.", b"")
        assert third.startswith(b"error: prompt=")
        assert (await loaded[0].statistics()).completed == 2


async def test_clients_are_served_side_by_side(
    example: Callable[[str], ModuleType], scripted_model: Callable[..., Path], loaded: list[paddock.Model]
) -> None:
    replies: list[bytes] = []
    script = b"One reply for everybody."

    async def ask(port: int) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as client:
            await client.send_all(b"Hello\n")
            await client.send_eof()
            replies.append(await read_all(client))

    async with serving(example("trio_service"), scripted_model(script)) as port:
        async with trio.open_nursery() as clients:
            for _ in range(5):
                clients.start_soon(ask, port)
        statistics = await loaded[0].statistics()
    assert replies == [script + b"\n\n"] * 5
    assert statistics.decode_steps < 5 * len(script)


async def test_a_client_that_hangs_up_takes_its_request_with_it(
    example: Callable[[str], ModuleType], scripted_model: Callable[..., Path], loaded: list[paddock.Model]
) -> None:
    async with serving(example("trio_service"), scripted_model(b"for ever and ever, ", then="repeat")) as port:
        clients = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(12)]
        for client in clients:
            await client.send_all(b"Tell me a long story\n" * 5)
        await clients[0].receive_some()
        for client in clients:
            await client.aclose()
        while True:
            statistics = await loaded[0].statistics()
            if statistics.queued == statistics.running == 0:
                break
        assert statistics.cancelled > 0
        assert statistics.sequences_free == statistics.sequences
        assert statistics.submitted < 12 * 5
