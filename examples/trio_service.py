"""A trio service: every connection sends prompts, a line each, and gets each reply as it is written.

    python examples/trio_service.py 8123 &
    echo "Once upon a time" | nc -q 60 localhost 8123

All connections share one model, which decodes their replies together. A client that goes away takes its request with
it. Ctrl-C closes the listener, the connections, and the runtime with its worker, in this order.
"""

from __future__ import annotations

import sys
from functools import partial

import trio

import paddock

LONGEST_LINE = 16_384


class Lines:
    """The lines of a stream, each at most ``LONGEST_LINE`` bytes."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def next(self) -> bytes | None:
        """The next line; None at the end of the stream."""
        while b"\n" not in self._buffer:
            if len(self._buffer) > LONGEST_LINE:
                raise ValueError("the line is too long")
            received = await self._stream.receive_some()
            if not received:
                return None
            self._buffer += received
        line, _, rest = self._buffer.partition(b"\n")
        self._buffer = rest
        return bytes(line)


async def reply(model: paddock.Model, prompt: bytes, stream: trio.SocketStream) -> None:
    """Streams one reply and ends it with an empty line; an error is a line of its own."""
    try:
        async with model.stream(prompt, max_tokens=100, deadline=60.0) as request:
            while deltas := await request.receive_many():
                await stream.send_all("".join(delta.text for delta in deltas).encode())
    except paddock.RequestError as error:
        await stream.send_all(f"error: {error}".encode())
    await stream.send_all(b"\n\n")


async def serve_connection(model: paddock.Model, stream: trio.SocketStream) -> None:
    """One client. Reading goes on while a reply is written, so its hanging up is noticed at once."""
    lines = Lines(stream)
    prompts, waiting = trio.open_memory_channel[bytes](4)

    async def read(nursery: trio.Nursery) -> None:
        try:
            async with prompts:
                while (line := await lines.next()) is not None:
                    await prompts.send(line)
                return  # the client has asked everything; what it waits for is still written
        except (trio.BrokenResourceError, ValueError):
            nursery.cancel_scope.cancel()

    async with stream, trio.open_nursery() as nursery:
        nursery.start_soon(read, nursery)
        try:
            async for prompt in waiting:
                await reply(model, prompt, stream)
        except trio.BrokenResourceError:
            pass  # it has hung up; leaving the request's block has cancelled the request
        nursery.cancel_scope.cancel()


async def serve(
    port: int, source: str = "cria", *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serves until cancelled; tells the port once it listens."""
    async with paddock.open_runtime() as runtime, trio.open_nursery() as nursery:
        model = await runtime.load_model(source)
        listeners: list[trio.SocketListener] = await nursery.start(
            partial(trio.serve_tcp, partial(serve_connection, model), port, host="127.0.0.1")
        )
        task_status.started(listeners[0].socket.getsockname()[1])


if __name__ == "__main__":
    try:
        trio.run(serve, int(sys.argv[1]) if len(sys.argv) > 1 else 8123)
    except KeyboardInterrupt:
        pass
