"""A web service: Starlette on asyncio, with one model in it.

    pip install starlette hypercorn
    hypercorn examples/starlette_app.py:app
    curl -d '{"prompt": "Once upon a time", "max_tokens": 40}' localhost:8000/complete
    curl -N -d '{"prompt": "Once upon a time", "max_tokens": 40}' localhost:8000/stream

``/complete`` answers with the whole reply, ``/stream`` with server-sent events. A client that disconnects cancels its
request within one decode step, and nobody else's. The same works in FastAPI, which is Starlette underneath.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

import paddock
import paddock.aio

STATUS: dict[type[paddock.PaddockError], int] = {
    paddock.InvalidParameter: 400,
    paddock.ContextOverflow: 400,
    paddock.QueueFull: 429,
    paddock.ModelUnavailable: 503,
    paddock.WorkerDied: 503,
    paddock.RequestCancelled: 503,
    paddock.RuntimeClosed: 503,
    paddock.DeadlineExceeded: 504,
}
ALLOWED = {"prompt", "max_tokens", "temperature", "seed", "stop"}


def problem(error: paddock.PaddockError) -> dict[str, Any]:
    return {"error": {"type": type(error).__name__, "message": str(error)}}


async def on_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, paddock.PaddockError)
    return JSONResponse(problem(error), STATUS.get(type(error), 500))


async def arguments(http: Request) -> dict[str, Any]:
    """The body's fields. What a client may ask for is the service's choice; that it makes sense, Paddock checks."""
    try:
        body = await http.json()
    except ValueError:
        raise paddock.InvalidParameter("body", "...", "a JSON object") from None
    if not isinstance(body, dict) or not body.keys() <= ALLOWED or not isinstance(body.get("prompt"), str):
        raise paddock.InvalidParameter("body", body, f"a JSON object with a prompt; known fields: {sorted(ALLOWED)}")
    return {"max_tokens": 200, "deadline": 120.0, **body}


async def complete(http: Request) -> Response:
    model: paddock.aio.Model = http.app.state.model
    completion = await model.complete(**await arguments(http))
    return JSONResponse(
        {
            "text": completion.text,
            "finish_reason": completion.finish_reason,
            "seed": completion.seed,
            "usage": attrs.asdict(completion.usage),
        }
    )


class EventStream(StreamingResponse):
    """The deltas of a request as server-sent events, and its end however the connection ends."""

    def __init__(self, request: paddock.aio.Request) -> None:
        super().__init__(self._events(request), media_type="text/event-stream")
        self._request = request

    async def _events(self, request: paddock.aio.Request) -> AsyncIterator[str]:
        try:
            while deltas := await request.receive_many():
                yield self._event({"text": "".join(delta.text for delta in deltas)})
            completion = await request.result()
            yield self._event({"finish_reason": completion.finish_reason, "seed": completion.seed})
        except paddock.PaddockError as error:  # the status line is gone; the stream has to say it
            yield self._event(problem(error))

    @staticmethod
    def _event(data: dict[str, Any]) -> str:
        return f"data: {json.dumps(data)}\n\n"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._request.__aexit__(None, None, None)


async def stream(http: Request) -> Response:
    model: paddock.aio.Model = http.app.state.model
    request = model.stream(**await arguments(http))
    return EventStream(await request.__aenter__())  # refused here, it gets its proper status


async def health(http: Request) -> Response:
    model: paddock.aio.Model = http.app.state.model
    statistics = await model.statistics()
    return JSONResponse(attrs.asdict(statistics), 200 if statistics.state == "serving" else 503)


def create_app(source: str = "cria", **options: Any) -> Starlette:
    """The application; ``options`` are fields of :class:`paddock.ModelConfig`."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with paddock.aio.open_runtime() as runtime:
            app.state.model = await runtime.load_model(source, **options)
            yield

    return Starlette(
        routes=[
            Route("/complete", complete, methods=["POST"]),
            Route("/stream", stream, methods=["POST"]),
            Route("/health", health),
        ],
        exception_handlers={paddock.PaddockError: on_error},
        lifespan=lifespan,
    )


app = create_app()
