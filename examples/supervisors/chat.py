"""A chat server: each client a process, each room a process group.

    python examples/supervisors/chat.py 8124 &
    nc localhost 8124

A line goes to everybody in the same room. ``/join garden`` goes to another room, ``/who`` counts who is in it, and
``/crash`` makes a process crash: its client is disconnected, nobody else notices. Ctrl-C stops everything in order.
"""

from __future__ import annotations

import sys
from typing import Any

import attrs
import trio

import supervisors as sup


@attrs.frozen
class Typed:
    """A line that the client of this session has sent."""

    line: str


@attrs.frozen
class Said:
    """What is said in a room, to its members."""

    text: str


class Session(sup.GenServer):
    """One client. Its reader is linked to it: neither outlives the other."""

    def __init__(self, stream: trio.SocketStream, name: str) -> None:
        self.stream = stream
        self.name = name
        self.room = "hall"

    @property
    def groups(self) -> sup.ProcessGroups:
        return sup.self().node.groups

    async def init(self) -> None:
        sup.trap_exits()
        sup.spawn_link(read_lines, self.stream, sup.self(), label=f"reader of {self.name}")
        self.enter(self.room)

    async def handle_info(self, message: Any) -> sup.Stop | None:
        match message:
            case Said(text):
                await self.stream.send_all(text.encode() + b"\n")
            case Typed("/crash"):
                raise RuntimeError(f"{self.name} asked for it")
            case Typed("/who"):
                await self.stream.send_all(f"{len(self.groups.members(self.room))} in {self.room}\n".encode())
            case Typed(line) if line.startswith("/join "):
                self.leave()
                self.enter(line.removeprefix("/join ").strip())
            case Typed(line):
                self.say(f"{self.name}: {line}")
            case sup.ExitSignal():
                return sup.Stop()  # the reader came to its end: the client has hung up
        return None

    def enter(self, room: str) -> None:
        self.room = room
        self.groups.join(room)
        self.say(f"* {self.name} is in {room}")

    def leave(self) -> None:
        self.groups.leave(self.room)
        self.say(f"* {self.name} has left {self.room}")

    def say(self, text: str) -> None:
        """Send to all in the room. Whoever is gone is no member any more: nobody has to be told."""
        for member in self.groups.members(self.room):
            sup.send(member, Said(text))

    async def terminate(self, reason: object) -> None:
        if sup.self() in self.groups.members(self.room):
            self.leave()
        await trio.aclose_forcefully(self.stream)


async def read_lines(stream: trio.SocketStream, session: sup.Target) -> None:
    """Tell the session what its client types; returns when the client hangs up."""
    rest = b""
    try:
        async for piece in stream:
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                sup.send(session, Typed(line.decode(errors="replace").rstrip("\r")))
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


class Door:
    """Lets clients in: starts a session for each, under the supervisor of sessions."""

    def __init__(self, sessions: sup.Target) -> None:
        self.sessions = sessions
        self.guests = 0

    async def welcome(self, stream: trio.SocketStream) -> None:
        self.guests += 1
        name = f"guest {self.guests}"
        spec = sup.child(Session, stream, name, label=name, restart="temporary")
        await sup.wait_down(await sup.start_child(self.sessions, spec))

    async def open(self, listener: trio.SocketListener) -> None:
        await trio.serve_listeners(self.welcome, [listener])


async def start_chat(node: sup.Node, port: int) -> int:
    """Start the tree; returns the port that it listens on."""
    (listener,) = await trio.open_tcp_listeners(port, host="127.0.0.1")
    door = Door(node.registry.via("sessions"))
    specs = [sup.child(sup.DynamicSupervisor, name="sessions"), sup.child(door.open, listener, id="door")]
    await node.start(sup.Supervisor, sup.SupervisorFlags("rest_for_one"), specs, label="chat")
    found: int = listener.socket.getsockname()[1]
    return found


async def main(node: sup.Node) -> None:
    port = await start_chat(node, int(sys.argv[1]) if len(sys.argv) > 1 else 8124)
    print(f"listening on 127.0.0.1:{port}")
    await trio.sleep_forever()


if __name__ == "__main__":
    sup.run(main)
