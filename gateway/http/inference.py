"""One inference over HTTP: headers and query into the worker's message, the body's bytes on unread, the reply back.

`HttpFront.answer` is how every route but those of streams has a model answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.web_request import Request
from multidict import istr

from ...protocol.codec import Body
from ...protocol.errors import InvalidRequest, ServingError
from ...protocol.messages import InferReply, InferRequest
from ..dataplane.budget import Budget, Share
from ..dataplane.inference import Exchange, Inference, client_timeout
from ..dispatch.queue import priority_of
from .bodies import read_body, small_body
from .errors import JSON, X_REQUEST_ID, HttpCaller, request_id
from .fast_response import FastResponse

JSON_SIZE = istr("Inference-Header-Content-Length")
TRACE_PARENT = istr("traceparent")
X_REQUEST_TIMEOUT = istr("X-Request-Timeout")
X_REQUEST_PRIORITY = istr("X-Request-Priority")

#: A reply's body of more bytes than this is written from where it was received; below, a copy is cheaper.
BORROW_ABOVE = 65536
#: Parameters of a query: each is decoded on the event loop.
MAX_QUERY = 256
#: Digits of a length that is worth looking at: more is larger than any body.
MAX_DIGITS = 15

Handler = Callable[[Request], Awaitable[web.StreamResponse]]


class HttpQuestion(HttpCaller):
    """An HTTP request to a model, as the data plane asks it (`dataplane.inference.Question`)."""

    started = 0
    #: Of the budget, what the answer has.
    share: Share | None = None

    def __init__(self, request: Request, budget: Budget, model: str | None = None) -> None:
        """`model`: where the path names none."""
        super().__init__(request)
        match = request.match_info
        self.model = match["model"] if model is None else model
        self.version = match.get("version")
        self._request: Request = request
        self._budget = budget

    @property
    def caller(self) -> HttpCaller:
        return self

    def describe(self, exchange: Exchange) -> InferRequest:
        """What the headers and the query say. Raises InvalidRequest.

        The deadline is the entry's timeout after the arrival, or the client's own (`X-Request-Timeout: 250ms`) when
        that is shorter; `X-Request-Priority: 1` goes before others in the queue.
        """
        request = self._request
        header = request.headers.get
        content_type = header(hdrs.CONTENT_TYPE, "")
        encoding = header(hdrs.CONTENT_ENCODING, "")
        accept = header(hdrs.ACCEPT, "")
        accept_encoding = header(hdrs.ACCEPT_ENCODING, "")
        trace = header(TRACE_PARENT, "")
        if not (
            content_type.isascii()
            and encoding.isascii()
            and accept.isascii()
            and accept_encoding.isascii()
            and trace.isascii()
        ):
            names = "Content-Type, Content-Encoding, Accept, Accept-Encoding and traceparent"
            raise InvalidRequest(f"{names} must be ASCII")
        own = header(X_REQUEST_TIMEOUT)
        timeout = None if own is None else client_timeout(own, X_REQUEST_TIMEOUT)
        message = exchange.message(content_type, encoding, accept, accept_encoding, trace, timeout)
        size = header(JSON_SIZE)
        if size is not None:
            message.json_size = _json_size(size)
        priority = header(X_REQUEST_PRIORITY)
        if priority is not None:
            message.priority = priority_of(priority)
        url = request.rel_url
        if url.raw_query_string:
            if url.raw_query_string.count("&") >= MAX_QUERY:
                raise InvalidRequest(f"the query has more than {MAX_QUERY} parameters")
            message.query = dict(url.query)
        return message

    def at_hand(self, message: InferRequest) -> Body | None:
        return small_body(self._request, self._budget)

    def reading(self, message: InferRequest) -> AbstractAsyncContextManager[Body]:
        return read_body(self._request, self._budget, message.deadline)

    async def translate(self, reply: InferReply, output: Body) -> dict[str, str]:
        """The answer's headers; a large one is held until it is written. Raises QueueFull where there is no room."""
        headers = _headers_of(reply)
        if len(output) > BORROW_ABOVE:
            self.share = self._budget.take(len(output))
        return headers


class HttpFront:
    """Has models answer HTTP requests; `kind` is what the worker is asked for."""

    def __init__(self, inference: Inference) -> None:
        self.inference = inference

    async def answer(self, request: Request, kind: str, model: str | None = None) -> web.StreamResponse:
        """The answer of the model in the path, or of `model`. Raises leaves of ServingError."""
        question = HttpQuestion(request, self.inference.budget, model)
        status, reply, output, headers = await self.inference.answer(question, kind)
        share = question.share
        if share is None:
            return await _respond(request, status, headers, reply, output)
        try:
            return await _respond(request, status, headers, reply, output)
        finally:
            share.release()

    def route(self, path: str, handler: Handler, kind: str) -> web.RouteDef:
        """POST to a model; who waits for leave to send a body is told early what it would be refused with."""

        async def expect(request: Request) -> None:
            budget, size = self.inference.budget, request.content_length or 0
            if "model" in request.match_info:
                self.inference.refuse_early(HttpQuestion(request, budget), kind, size)
            else:
                budget.check(size)
            if request.version < HttpVersion11:
                return  # such a client knows no interim answers
            if request.headers["Expect"].lower() != "100-continue":
                raise web.HTTPExpectationFailed(text=f"Expect: {request.headers['Expect'][:100]} is not understood")
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # the answer has not begun yet

        return web.post(path, handler, expect_handler=expect)


def _json_size(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
        raise InvalidRequest(
            f"{JSON_SIZE}: {text[:100]!r} is not the number of bytes of the JSON part; write digits only"
        )
    return int(text)


# ---- answers -------------------------------------------------------------------------------------


def _headers_of(reply: InferReply) -> dict[str, str]:
    """Raises ServingError: a worker's word must not write headers of its own, and aiohttp would answer with silence."""
    content_type = reply.content_type
    if content_type != JSON and not (content_type.isascii() and content_type.isprintable()):
        raise ServingError(f"the model answered with a content type that cannot be sent: {content_type[:100]!r}")
    headers: dict[str, str] = {hdrs.CONTENT_TYPE: content_type}
    if reply.json_size is not None:
        headers[JSON_SIZE] = str(reply.json_size)
    if reply.content_encoding:
        if not (reply.content_encoding.isascii() and reply.content_encoding.isprintable()):
            raise ServingError("the model answered with a content encoding that cannot be sent")
        headers[hdrs.CONTENT_ENCODING] = reply.content_encoding
        headers[hdrs.VARY] = hdrs.ACCEPT_ENCODING
    return headers


async def _respond(
    request: Request, status: int, headers: dict[str, str], reply: InferReply, output: Body
) -> web.StreamResponse:
    if status == 200 and not reply.content_encoding and len(output) <= BORROW_ABOVE and FastResponse.fits(request):
        return FastResponse(reply.content_type, reply.json_size, output)
    if not isinstance(output, memoryview):
        return web.Response(body=output, status=status, headers=headers)
    if output.nbytes <= BORROW_ABOVE:
        return web.Response(body=bytes(output), status=status, headers=headers)
    return await _write(request, status, headers, output)


async def _write(request: Request, status: int, headers: dict[str, str], body: memoryview) -> web.StreamResponse:
    """Send a large body from where it is; aiohttp's own Response would copy it first."""
    known = request_id(request)
    if known is not None:
        headers[X_REQUEST_ID] = known
    response = web.StreamResponse(status=status, headers=headers)
    response.content_length = body.nbytes
    await response.prepare(request)
    await response.write(body)
    return response
