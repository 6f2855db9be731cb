"""The web service, on hypercorn, over a loopback connection."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from hypercorn.asyncio import serve
from hypercorn.config import Config

import paddock.aio

SCRIPT = "One word after another. "
SMALL = {"n_threads": 1, "n_seq_max": 2, "n_ctx": 4096, "isolation": "thread"}

Web = Callable[..., Any]


class Client(httpx.AsyncClient):
    """A client that also knows the model behind the service."""

    model: paddock.aio.Model


@pytest.fixture
def web(example: Callable[[str], ModuleType], scripted_model: Callable[..., Path]) -> Web:
    """``async with web() as client``: the service on a free port, with an endless model (``client.model``)."""

    @asynccontextmanager
    async def running(**options: Any) -> AsyncIterator[httpx.AsyncClient]:
        app = example("starlette_app").create_app(
            str(scripted_model(SCRIPT.encode(), then="repeat")), **{**SMALL, **options}
        )
        with socket.create_server(("127.0.0.1", 0)) as listener:
            config = Config()
            config.bind = [f"fd://{listener.fileno()}"]
            config.errorlog = None
            stopping = asyncio.Event()
            server = asyncio.create_task(serve(app, config, shutdown_trigger=stopping.wait))
            port = listener.getsockname()[1]
            try:
                async with Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
                    await client.get("/health")
                    client.model = app.state.model
                    yield client
            finally:
                stopping.set()
                await server
                listener.detach()  # hypercorn has closed it

    return running


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


async def settled(client: httpx.AsyncClient) -> dict[str, Any]:
    while True:
        statistics: dict[str, Any] = (await client.get("/health")).json()
        if statistics["queued"] == statistics["running"] == 0:
            return statistics


def events(text: str) -> list[Any]:
    return [json.loads(event.removeprefix("data: ")) for event in text.split("\n\n") if event]


def test_a_completion_is_answered_as_json(web: Web) -> None:
    async def main() -> None:
        async with web() as client:
            answer = await client.post("/complete", json={"prompt": "hi", "max_tokens": 24, "seed": 7})
            assert answer.status_code == 200
            assert answer.json() == {
                "text": SCRIPT,
                "finish_reason": "length",
                "seed": 7,
                "usage": {"prompt_tokens": 3, "cached_tokens": 0, "completion_tokens": 24},
            }

    run(main)


def test_a_stream_comes_as_events_and_ends_with_the_reason(web: Web) -> None:
    async def main() -> None:
        async with web() as client:
            answer = await client.post("/stream", json={"prompt": "hi", "max_tokens": 48, "seed": 7})
            assert answer.headers["content-type"].startswith("text/event-stream")
            *deltas, last = events(answer.text)
            assert "".join(delta["text"] for delta in deltas) == SCRIPT * 2
            assert last == {"finish_reason": "length", "seed": 7}

    run(main)


def test_many_clients_at_once_each_get_their_own(web: Web) -> None:
    async def main() -> None:
        async with web() as client:
            lengths = [1, 5, 24, 30, 48, 7, 9, 11]
            answers = await asyncio.gather(
                *(client.post("/stream", json={"prompt": "hi", "max_tokens": length}) for length in lengths)
            )
            for answer, length in zip(answers, lengths, strict=True):
                *deltas, _ = events(answer.text)
                assert "".join(delta["text"] for delta in deltas) == (SCRIPT * 2)[:length]

    run(main)


def test_a_client_that_disconnects_cancels_its_request(web: Web) -> None:
    async def main() -> None:
        async with web() as client:
            body = {"prompt": "hi", "max_tokens": 4000}
            async with client.stream("POST", "/stream", json=body) as answer:
                async for line in answer.aiter_lines():
                    assert line.startswith("data: ")
                    break
            statistics = await settled(client)
            assert (statistics["submitted"], statistics["cancelled"]) == (1, 1)
            assert statistics["sequences_free"] == statistics["sequences"]

    run(main)


def test_a_queued_client_that_disconnects_leaves_the_queue(web: Web) -> None:
    async def main() -> None:
        async with web(n_seq_max=1) as client:
            body = {"prompt": "hi", "max_tokens": 4000}
            async with client.model.stream("hi") as unread:  # holds the only sequence
                await anext(unread)
                async with client.stream("POST", "/stream", json=body) as queued:
                    assert queued.status_code == 200
                    assert (await client.model.statistics()).queued == 1
                while (await client.model.statistics()).queued:
                    pass
            assert (await settled(client))["cancelled"] == 2

    run(main)


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"prompt": "hi", "temperature": -3}, 400, "InvalidParameter"),
        ({"prompt": "hi", "max_tokens": 100_000}, 400, "ContextOverflow"),
        ({"prompt": ""}, 400, "InvalidParameter"),
        ({"prompt": 7}, 400, "InvalidParameter"),
        ({"prompt": "hi", "logits_processor": "evil"}, 400, "InvalidParameter"),
        ([], 400, "InvalidParameter"),
    ],
)
@pytest.mark.parametrize("path", ["/complete", "/stream"])
def test_a_refusal_has_a_status_and_a_reason(web: Web, path: str, body: object, status: int, kind: str) -> None:
    async def main() -> None:
        async with web() as client:
            answer = await client.post(path, json=body)
            assert answer.status_code == status
            assert answer.json()["error"]["type"] == kind
            assert (await client.get("/health")).status_code == 200

    run(main)


def test_a_full_queue_answers_429(web: Web) -> None:
    async def main() -> None:
        async with web(n_seq_max=1, queue_limit=0) as client:
            async with client.model.stream("hi") as unread:  # holds the only sequence
                await anext(unread)
                for path in ("/complete", "/stream"):
                    answer = await client.post(path, json={"prompt": "me too"})
                    assert answer.status_code == 429
            assert (await settled(client))["refused"] == 2

    run(main)
