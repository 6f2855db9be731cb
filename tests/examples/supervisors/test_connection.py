"""The connection state machine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import ModuleType

import pytest
import trio

import supervisors as sup


@pytest.fixture
def connection(example: Callable[[str], ModuleType]) -> ModuleType:
    return example("supervisors/connection")


class Peer:
    """A listener on the loopback whose clients a test serves by hand."""

    def __init__(self) -> None:
        self.port = 0
        self.send, self.clients = trio.open_memory_channel[trio.SocketStream](10)

    async def serve(self, stream: trio.SocketStream) -> None:
        await self.send.send(stream)
        await trio.sleep_forever()


@asynccontextmanager
async def peer() -> AsyncIterator[Peer]:
    found = Peer()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        found.port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, found.serve, listeners)
        yield found
        nursery.cancel_scope.cancel()


def test_the_program_gets_an_answer_to_everything(connection: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    sup.run(connection.main)
    words = ("one", "two", "three", "four", "five", "six", "seven")
    assert capsys.readouterr().out.splitlines() == [f"{word}: {word.upper()}" for word in words]


async def test_requests_made_while_it_is_down_wait_until_it_is_up(connection: ModuleType) -> None:
    async with peer() as other, sup.open_node() as node:
        pid = await node.start(connection.Connection, other.port)
        requests = [sup.send_request(pid, connection.Ask(line)) for line in ("a", "b")]
        stream = await other.clients.receive()
        received = b""
        while received.count(b"\n") < 2:
            received += await stream.receive_some()
        assert received == b"a\nb\n"
        await stream.send_all(b"first\nsec")
        await stream.send_all(b"ond\n")
        assert [await request.wait() for request in requests] == ["first", "second"]


async def test_what_is_under_way_when_it_goes_down_fails_and_it_comes_up_again(connection: ModuleType) -> None:
    async with peer() as other, sup.open_node() as node:
        pid = await node.start(connection.Connection, other.port, 0.001)
        request = sup.send_request(pid, connection.Ask("a"))
        stream = await other.clients.receive()
        await stream.receive_some()
        await stream.aclose()
        with pytest.raises(connection.ConnectionLost):
            await request.wait()
        await other.clients.receive()
        assert pid.alive


async def test_a_refused_connection_is_tried_again_later(connection: ModuleType) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    async with sup.open_node() as node:
        pid = await node.start(connection.Connection, port, 0.001)
        while (await sup.get_state(pid))[0] != "disconnected":
            await trio.lowlevel.checkpoint()
        request = sup.send_request(pid, connection.Ask("a"))
        listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
        node.spawn(trio.serve_listeners, connection.serve, listeners)
        assert await request.wait() == "A"


async def test_stopping_it_leaves_no_process_behind(connection: ModuleType) -> None:
    async with peer() as other, sup.open_node() as node:
        pid = await node.start(connection.Connection, other.port)
        stream = await other.clients.receive()
        await sup.stop(pid)
        while node.processes:
            await trio.lowlevel.checkpoint()
        assert await stream.receive_some() == b""


async def test_a_peer_that_does_not_answer_the_knock_is_given_up(
    connection: ModuleType, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async def never(port: int, machine: sup.Target) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(connection, "connect", never)
    async with sup.open_node() as node:
        pid = await node.start(connection.Connection, 0, 1.0)
        await trio.sleep(5.5)
        assert (await sup.get_state(pid))[0] == "disconnected"
        await trio.sleep(2)
        assert (await sup.get_state(pid))[0] == "connecting"
