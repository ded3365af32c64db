"""Answers piece by piece, as Server-Sent Events; and the text extension, in one piece or in many.

    POST /v2/models/{model}/infer_stream       the same request as infer; each event is what infer would say to a piece
    POST /v2/models/{model}/generate           {"text_input", "parameters"?} -> {"text_output"}
    POST /v2/models/{model}/generate_stream    the same, an event for each piece

What goes wrong before the first event has its own HTTP status; after it, `data: {"error": …}` is the last event.
"""

from __future__ import annotations

import json

from aiohttp import hdrs, web
from aiohttp.web_request import Request

from ...protocol.errors import InvalidRequest, ServingError
from ...protocol.kinds import GENERATE, GENERATE_STREAM, STREAM
from ...protocol.messages import InferReply
from ..dataplane.inference import Exchange
from ..dispatch.streams import Chunk, Chunks
from .errors import X_REQUEST_ID
from .inference import HttpFront, HttpQuestion


class StreamRoutes:
    """Handlers of these paths; `table` names them."""

    def __init__(self, front: HttpFront) -> None:
        self._front = front

    def table(self) -> list[web.RouteDef]:
        handlers = (
            ("infer_stream", self.infer_stream, STREAM),
            ("generate", self.generate, GENERATE),
            ("generate_stream", self.generate_stream, GENERATE_STREAM),
        )
        paths = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
        return [
            self._front.route(f"{path}/{name}", handler, kind) for path in paths for name, handler, kind in handlers
        ]

    async def infer_stream(self, request: Request) -> web.StreamResponse:
        return await self._stream(request, STREAM)

    async def generate_stream(self, request: Request) -> web.StreamResponse:
        return await self._stream(request, GENERATE_STREAM)

    async def generate(self, request: Request) -> web.StreamResponse:
        return await self._front.answer(request, GENERATE)

    async def _stream(self, request: Request, kind: str) -> web.StreamResponse:
        question = _StreamedQuestion(request, self._front.inference.budget)
        await self._front.inference.stream(question, kind)
        assert question.response is not None
        return question.response


class _StreamedQuestion(HttpQuestion):
    """A request that is answered with events; `response` has been sent when it has ended well."""

    response: web.StreamResponse | None = None

    async def forward(self, exchange: Exchange, chunks: Chunks) -> None:
        """What fails once the answer has begun is an event of it."""
        found = await chunks.take()
        if not found:
            reply, body = await chunks.end()  # raises what the whole request failed with
            if reply.status >= 400:
                headers = {hdrs.CONTENT_TYPE: reply.content_type}
                self.response = web.Response(body=bytes(body), status=reply.status, headers=headers)
                exchange.end(reply)
                return
        self.response = web.StreamResponse(
            headers={
                hdrs.CONTENT_TYPE: "text/event-stream",
                hdrs.CACHE_CONTROL: "no-cache",
                "X-Accel-Buffering": "no",
                X_REQUEST_ID: self.id,  # an error may still come
            }
        )
        events = _events(found)
        await self.response.prepare(self._request)
        exchange.end(await _send(self.response, events, chunks))


async def _send(stream: web.StreamResponse, events: bytes, chunks: Chunks) -> InferReply | ServingError:
    """The events, and how they ended."""
    end: InferReply | ServingError
    try:
        while events:
            await stream.write(events)
            events = _events(await chunks.take())
        end, rest = await chunks.end()
        events = _event(bytes(rest)) if len(rest) else b""
    except ServingError as error:
        end, events = error, _event(json.dumps({"error": error.message}).encode())
    if events:
        await stream.write(events)
    await stream.write_eof()
    return end


def _events(chunks: list[Chunk]) -> bytes:
    """Raises InvalidRequest."""
    if any(chunk.json_size is not None for chunk in chunks):
        raise InvalidRequest("binary outputs cannot be streamed as events: leave binary_data_output out")
    return b"".join(_event(chunk.body) for chunk in chunks)


def _event(body: bytes) -> bytes:
    """JSON has no line ends of its own here: orjson and json write one line."""
    return b"data: " + body + b"\n\n"
