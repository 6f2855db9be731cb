"""Fetch many pages, a few a second, whatever breaks.

    python examples/supervisors/fetcher_pool.py

    fetcher_pool       rest_for_one
    ├── limiter        grants permits, so many a second
    ├── pool           dynamic: one process for each fetch, which may crash as it likes
    └── crawl          starts the fetches, hears how each ended, tries again

The program serves the pages itself, and drops every third connection.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio

import supervisors as sup

Fetch = Callable[[str], Awaitable[str]]
TRIES = 3


class Permit(sup.Request[None, "RateLimiter"]):
    """Ask for leave to fetch one page; answered when it is your turn."""


class RateLimiter(sup.GenServer):
    """Grants at most ``rate`` permits a second, in the order they were asked for."""

    def __init__(self, rate: float) -> None:
        self.interval = 1 / rate
        self.waiting: deque[sup.From] = deque()
        self.next_at = -math.inf

    async def handle_call(self, request: Permit, from_: sup.From) -> sup.NoReply:
        self.waiting.append(from_)
        return sup.NoReply(self.grant())

    async def handle_timeout(self) -> sup.TimeoutAt | None:
        return self.grant()

    def grant(self) -> sup.TimeoutAt | None:
        """Answer whoever's turn it is; the loop comes back when the next one's is."""
        while self.waiting and self.next_at <= trio.current_time():
            from_ = self.waiting.popleft()
            if from_.pending:  # a fetch that was stopped meanwhile costs nothing
                sup.reply(from_, None)
                self.next_at = trio.current_time() + self.interval
        return sup.TimeoutAt(self.next_at) if self.waiting else None


class Results(sup.Request[dict[str, str], "Crawl"]):
    """All pages, once each has been fetched or given up."""


class Crawl(sup.GenServer):
    """Sees to it that each page is fetched, or has been tried `TRIES` times."""

    def __init__(self, pages: Sequence[str], fetch: Fetch) -> None:
        self.pages = pages
        self.fetch = fetch
        self.tries: dict[str, int] = {}
        self.running: dict[sup.MonitorRef, str] = {}
        self.results: dict[str, str] = {}
        self.asking: list[sup.From] = []

    async def init(self) -> None:
        for page in self.pages:
            await self.begin(page)

    async def begin(self, page: str) -> None:
        """Start a fetch as a process of its own. If it crashes, it crashes alone."""
        self.tries[page] = self.tries.get(page, 0) + 1
        registry = sup.self().node.registry
        spec = sup.child(fetch_page, page, self.fetch, registry.via("limiter"), sup.self(), restart="temporary")
        self.running[sup.monitor(await sup.start_child(registry.via("pool"), spec))] = page

    async def handle_call(self, request: Results, from_: sup.From) -> sup.Reply | sup.NoReply:
        if not self.running:
            return sup.Reply(self.results)
        self.asking.append(from_)
        return sup.NO_REPLY

    async def handle_info(self, message: Any) -> None:
        match message:
            case (page, text):
                self.results[page] = text
            case sup.Down(ref, _, reason):
                page = self.running.pop(ref)
                if page not in self.results and self.tries[page] < TRIES:
                    await self.begin(page)
                else:
                    self.results.setdefault(page, f"given up: {reason}")
                if not self.running:
                    for from_ in self.asking:
                        sup.reply(from_, self.results)


async def fetch_page(page: str, fetch: Fetch, limiter: sup.Via, crawl: sup.Target) -> None:
    await sup.call(limiter, Permit(), timeout=math.inf)
    sup.send(crawl, (page, await fetch(page)))


async def crawl(node: sup.Node, pages: Sequence[str], fetch: Fetch, rate: float = 20) -> dict[str, str]:
    """Start the tree, fetch all, and stop the tree again."""
    specs = [
        sup.child(RateLimiter, rate, name="limiter"),
        sup.child(sup.DynamicSupervisor, name="pool"),
        sup.child(Crawl, pages, fetch, name="crawl"),
    ]
    root = await node.start(sup.Supervisor, sup.SupervisorFlags("rest_for_one"), specs, label="fetcher_pool")
    results = await sup.call(node.registry.via("crawl"), Results(), timeout=math.inf)
    await sup.stop(root, sup.Shutdown())
    return results


async def main(node: sup.Node) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    clients = itertools.count(1)

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            page = await stream.receive_some(100)
            if next(clients) % 3:
                await stream.send_all(b"this is " + page)

    async def fetch(page: str) -> str:
        async with await trio.open_tcp_stream(*listener.socket.getsockname()) as stream:
            await stream.send_all(page.encode())
            text = b"".join([piece async for piece in stream])
        if not text:
            raise ConnectionResetError("the server hung up")
        return text.decode()

    node.spawn(trio.serve_listeners, serve, [listener], label="pages")
    for page, text in sorted((await crawl(node, [f"page {n:02}" for n in range(12)], fetch)).items()):
        print(f"{page}: {text}")


if __name__ == "__main__":
    sup.run(main)
