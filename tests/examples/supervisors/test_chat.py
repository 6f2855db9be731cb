"""The chat room."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import ModuleType

import pytest
import trio

import supervisors as sup
from supervisors.testing import assert_tree, settle


class Client:
    """One who chats, from the other end of the socket."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.rest = b""

    async def says(self, line: str) -> None:
        await self.stream.send_all(line.encode() + b"\n")

    async def hears(self) -> str | None:
        """The next line; None when the connection is closed."""
        while b"\n" not in self.rest:
            received = await self.stream.receive_some()
            if not received:
                return None
            self.rest += received
        line, _, self.rest = self.rest.partition(b"\n")
        return line.decode()


class Chat:
    def __init__(self, node: sup.Node, port: int) -> None:
        self.node = node
        self.port = port
        self.clients: list[Client] = []

    async def client(self) -> Client:
        self.clients.append(Client(await trio.open_tcp_stream("127.0.0.1", self.port)))
        return self.clients[-1]


@pytest.fixture
async def chat(example: Callable[[str], ModuleType]) -> AsyncIterator[Chat]:
    module = example("supervisors/chat")

    @asynccontextmanager
    async def running() -> AsyncIterator[Chat]:
        async with sup.open_node() as node:
            opened = Chat(node, await module.start_chat(node, 0))
            yield opened
            for client in opened.clients:
                await client.stream.aclose()

    async with running() as found:
        yield found


async def test_a_line_goes_to_everybody_in_the_room(chat: Chat) -> None:
    one, two = await chat.client(), await chat.client()
    assert await one.hears() == "* guest 1 is in hall"
    assert await one.hears() == "* guest 2 is in hall"
    assert await two.hears() == "* guest 2 is in hall"
    await two.says("hello")
    assert await one.hears() == await two.hears() == "guest 2: hello"


async def test_rooms_do_not_hear_each_other(chat: Chat) -> None:
    one = await chat.client()
    assert await one.hears() == "* guest 1 is in hall"
    await one.says("/join garden")
    assert await one.hears() == "* guest 1 is in garden"
    two = await chat.client()
    assert await two.hears() == "* guest 2 is in hall"
    await two.says("anybody here?")
    assert await two.hears() == "guest 2: anybody here?"
    await one.says("/who")
    assert await one.hears() == "1 in garden"
    assert chat.node.groups.groups() == ["garden", "hall"]


async def test_a_crash_is_one_clients_own(chat: Chat) -> None:
    one, two = await chat.client(), await chat.client()
    for _ in range(2):
        await one.hears()
    assert await two.hears() == "* guest 2 is in hall"
    await two.says("/crash")
    assert await two.hears() is None
    assert await one.hears() == "* guest 2 has left hall"
    await one.says("still here")
    assert await one.hears() == "guest 1: still here"


async def test_hanging_up_ends_the_session_and_its_reader(chat: Chat) -> None:
    one, two = await chat.client(), await chat.client()
    for _ in range(2):
        await one.hears()
    await two.stream.aclose()
    assert await one.hears() == "* guest 2 has left hall"
    await settle()
    assert_tree(chat.node.registry.via("sessions"), {"sessions": {"guest 1": "reader of guest 1"}})


def test_the_program_listens_and_ends_in_order(
    example: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = example("supervisors/chat")
    monkeypatch.setattr(module.sys, "argv", ["chat.py", "0"])

    async def main(node: sup.Node) -> None:
        with trio.move_on_after(30) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(module.main, node)
                while not node.processes or not (said := capsys.readouterr().out):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        assert not scope.cancelled_caught
        assert said.startswith("listening on 127.0.0.1:")

    sup.run(main)
