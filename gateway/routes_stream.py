"""Answers piece by piece, as Server-Sent Events; and the text extension, in one piece or in many.

    POST /v2/models/{model}/infer_stream       the same request as infer; each event is what infer would say to a piece
    POST /v2/models/{model}/generate           {"text_input", "parameters"?} -> {"text_output"}
    POST /v2/models/{model}/generate_stream    the same, an event for each piece

What goes wrong before the first event has its own HTTP status; after it, `data: {"error": …}` is the last event.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

from aiohttp import hdrs, web
from aiohttp.web_request import Request

from ..protocol.codec import Body
from ..protocol.errors import ServingError
from ..protocol.messages import InferReply
from .errors import status_of
from .infer import answer, read_body, to_message

if TYPE_CHECKING:
    from .model import ModelVersion
    from .registry import Registry

#: Kinds of requests, as workers know them.
STREAM, GENERATE, GENERATE_STREAM = "stream", "generate", "generate_stream"
#: Bytes of events that a client may be behind; one that reads more slowly is let go.
MAX_BEHIND = 16 << 20


class StreamRoutes:
    """Handlers of these paths; `table` names them."""

    def __init__(self, registry: Registry, max_body: int) -> None:
        self._registry = registry
        self._max_body = max_body

    def table(self) -> list[web.RouteDef]:
        handlers = (
            ("infer_stream", self.infer_stream),
            ("generate", self.generate),
            ("generate_stream", self.generate_stream),
        )
        paths = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
        return [web.post(f"{path}/{name}", handler) for path in paths for name, handler in handlers]

    async def infer_stream(self, request: Request) -> web.StreamResponse:
        return await self._stream(request, STREAM)

    async def generate_stream(self, request: Request) -> web.StreamResponse:
        return await self._stream(request, GENERATE_STREAM)

    async def generate(self, request: Request) -> web.StreamResponse:
        return await answer(self._find(request), request, self._max_body, GENERATE)

    def _find(self, request: Request) -> ModelVersion:
        match = request.match_info
        return self._registry.find(match["model"], match.get("version"))

    async def _stream(self, request: Request, kind: str) -> web.StreamResponse:
        version = self._find(request)
        started = time.monotonic_ns()
        message = to_message(request, version, kind, started / 1e9)
        try:
            body = await read_body(request, self._max_body, message.deadline)
            events = _Events()
            events.asked = asyncio.ensure_future(version.infer(message, body, events.put))
            events.asked.add_done_callback(lambda _: events.arrived.set())
            try:
                response, reply = await _send(request, events)
            finally:
                events.asked.cancel()
        except BaseException as error:
            version.stats.fail(kind, status_of(error), time.monotonic_ns() - started)
            raise
        _count(version, kind, reply, time.monotonic_ns() - started)
        return response


def _count(version: ModelVersion, kind: str, reply: InferReply | None, elapsed: int) -> None:
    if reply is not None and reply.status < 400:
        version.stats.succeed(kind, reply.status or 200, elapsed, reply)
    else:
        version.stats.fail(kind, reply.status if reply is not None else 500, elapsed)


class _Events:
    """What the worker has sent and the client has not been given yet."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.asked: asyncio.Future[tuple[InferReply, Body]]
        self._waiting: list[bytes] = []
        self._bytes = 0

    def put(self, body: Body) -> None:
        """Called by the dispatcher for every chunk."""
        self._waiting.append(bytes(body))
        self._bytes += len(self._waiting[-1])
        self.arrived.set()
        if self._bytes > MAX_BEHIND:
            self.asked.cancel()

    async def take(self) -> list[bytes]:
        """Waits for events; [] when there will be no more."""
        while not self._waiting and not self.asked.done():
            self.arrived.clear()
            await self.arrived.wait()
        found, self._waiting, self._bytes = self._waiting, [], 0
        return found


async def _send(request: Request, events: _Events) -> tuple[web.StreamResponse, InferReply | None]:
    first = await events.take()
    if not first:
        reply, body = await events.asked  # raises what the whole request failed with
        if reply.status >= 400:
            response = web.Response(
                body=bytes(body), status=reply.status, headers={hdrs.CONTENT_TYPE: reply.content_type}
            )
            return response, reply
    stream = web.StreamResponse(
        headers={hdrs.CONTENT_TYPE: "text/event-stream", hdrs.CACHE_CONTROL: "no-cache", "X-Accel-Buffering": "no"}
    )
    await stream.prepare(request)
    while first:
        await stream.write(b"".join(_event(body) for body in first))
        first = await events.take()
    last: InferReply | None = None
    try:
        last, rest = await events.asked
        if len(rest):
            await stream.write(_event(bytes(rest)))
    except ServingError as error:
        await stream.write(_event(json.dumps({"error": error.message}).encode()))
    except asyncio.CancelledError:
        if not events.asked.cancelled():
            raise
        await stream.write(_event(b'{"error":"the events were read too slowly"}'))
    await stream.write_eof()
    return stream, last


def _event(body: bytes) -> bytes:
    """JSON has no line ends of its own here: orjson and json write one line."""
    return b"data: " + body + b"\n\n"
