"""A connection that mends itself: callers ask, and need not know whether it is up.

    python examples/supervisors/connection.py

    disconnected ── after a pause ──> connecting ── a stream ──> connected
         ^                                │                          │
         └────── refused, too slow ───────┴──── the peer hung up ────┘

Requests that come while it is down are postponed until it is up; those under way when it goes down fail. The peer is
part of this program, and hangs up after every third line.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import attrs
import trio

import supervisors as sup


class ConnectionLost(Exception):
    """The peer went away before it answered."""


@attrs.frozen
class Ask(sup.Request[str, "Connection"]):
    """One line to the peer; its answer is a line, too."""

    line: str


class Connection(sup.GenStatem):
    """One connection, in three states. What may block runs in a process linked to it."""

    state_enter = True

    def __init__(self, port: int, pause: float = 0.05) -> None:
        self.port = port
        self.pause = pause
        self.failures = 0
        self.peer: sup.Pid[Any] | None = None
        self.stream: trio.SocketStream | None = None
        self.waiting: deque[sup.From] = deque()

    async def init(self) -> tuple[str]:
        sup.trap_exits()  # the end of a linked process is an event
        return ("connecting",)

    async def disconnected(self, event_type: sup.EventType, content: Any) -> sup.StateResult:
        if event_type == sup.EventType.ENTER:
            self.failures += 1
            return sup.keep_state(sup.StateTimeout(min(2.0, self.pause * 2**self.failures)))
        if event_type == sup.EventType.STATE_TIMEOUT:
            return sup.next_state("connecting")
        return self.postpone_requests(event_type)

    async def connecting(self, event_type: sup.EventType, content: Any) -> sup.StateResult:
        if event_type == sup.EventType.ENTER:
            self.peer = sup.spawn_link(connect, self.port, sup.self(), label="connect")
            return sup.keep_state(sup.StateTimeout(5))
        if event_type == sup.EventType.STATE_TIMEOUT:
            self.drop()
            return sup.next_state("disconnected")
        match content:
            case trio.SocketStream():
                self.stream = content
                return sup.next_state("connected")
            case sup.ExitSignal(pid) if pid is self.peer:
                return sup.next_state("disconnected")
        return self.postpone_requests(event_type)

    async def connected(self, event_type: sup.EventType, content: Any) -> sup.StateResult:
        if event_type == sup.EventType.ENTER:
            self.failures = 0
            return sup.keep_state()
        match content:
            case Ask(line) if self.stream is not None:
                try:
                    await self.stream.send_all(line.encode() + b"\n")
                except (trio.BrokenResourceError, trio.ClosedResourceError):  # news of its end is under way
                    return sup.keep_state(sup.ReplyError(event_type.from_, ConnectionLost()))
                self.waiting.append(event_type.from_)
            case str() if self.waiting:
                return sup.keep_state(sup.ReplyTo(self.waiting.popleft(), content))
            case sup.ExitSignal(pid) if pid is self.peer:
                lost = [sup.ReplyError(from_, ConnectionLost()) for from_ in self.waiting]
                self.drop()
                return sup.next_state("disconnected", *lost)
        return sup.keep_state()

    def postpone_requests(self, event_type: sup.EventType) -> sup.StateResult:
        return sup.keep_state(sup.Postpone()) if event_type == sup.EventType.CALL else sup.keep_state()

    def drop(self) -> None:
        """Let go of the peer; the process that has its stream closes it as it ends."""
        self.waiting.clear()
        if self.peer is not None:
            sup.unlink(self.peer)
            sup.exit(self.peer, sup.Killed())
        self.peer = self.stream = None

    async def terminate(self, reason: object, state: str) -> None:
        self.drop()


async def connect(port: int, machine: sup.Target) -> None:
    """Open the stream, show it to the machine, and read its lines until the peer hangs up."""
    rest = b""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        sup.send(machine, stream)
        async for piece in stream:
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                sup.send(machine, line.decode())


async def serve(stream: trio.SocketStream) -> None:
    """A peer that says everything louder, and has had enough after three lines."""
    async with stream:
        for _ in range(3):
            await stream.send_all((await stream.receive_some(1000)).upper())


async def ask(connection: sup.Via, line: str) -> str:
    """Ask until there is an answer, however often the connection breaks."""
    while True:
        try:
            return await sup.call(connection, Ask(line), timeout=math.inf)
        except ConnectionLost:
            pass


async def main(node: sup.Node) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    node.spawn(trio.serve_listeners, serve, [listener], label="peer")
    port = listener.socket.getsockname()[1]
    await node.start(sup.Supervisor, None, [sup.child(Connection, port, name="connection")])
    for line in ("one", "two", "three", "four", "five", "six", "seven"):
        print(f"{line}: {await ask(node.registry.via('connection'), line)}")


if __name__ == "__main__":
    sup.run(main)
