"""How connections are served: whatever is raised becomes a V2 error, whoever sends nothing loses its place.

`guard` stands round the whole application, so that what a handler, the router or aiohttp itself raises
becomes a V2 error; `V2Protocol` answers what its parser refuses before there is a request. `runner.py` puts both
round an application.
"""

from __future__ import annotations

import asyncio
import logging
import select
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.http import HttpVersion11
from aiohttp.http_exceptions import BadHttpMethod, HttpProcessingError, InvalidURLError, LineTooLong

from ...protocol.errors import ServingError
from ...protocol.statuses import CLIENT_GONE
from ..system.crowd import FOR_PROBES
from .bodies import BrokenBody
from .errors import GIVEN_ID, X_REQUEST_ID, error_response, request_id, v2_error
from .refusals import Refusals, of_head, too_large

log = logging.getLogger("modelhub.http")

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
#: Takes a connection over, with what has been read of it.
TakesOver = Callable[[asyncio.Transport, bytes], None]

#: How every connection of HTTP/2 begins.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

#: Seconds that an idle connection is kept: longer than the load balancers in front do (up to 600 s), so that
#: none of them sends a request into a connection that is being closed.
KEEP_ALIVE = 620.0
#: The answer to a connection that is one too many.
TOO_MANY_SAYS = "too many connections (server.max_connections): try again later"
TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: %d\r\nRetry-After: 1\r\n"
    b"Connection: close\r\n\r\n%s"
) % (len(_MESSAGE := b'{"error":"%s"}' % TOO_MANY_SAYS.encode()), _MESSAGE)
#: Is somebody there? And seconds after which it is looked whether the client has refused it.
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
_LOOKS = (0.02, 0.1, 0.5, 2.0, 5.0)
#: Seconds that a new connection may take to send the head of its first request.
FIRST_REQUEST = 60.0


# ---- errors --------------------------------------------------------------------------------------


def guard(handler: Handler, count: Callable[[int], None], refusals: Refusals) -> Handler:
    """`handler` with everything that it raises turned into a V2 error; `count` is told the status of each error.

    Not a middleware: aiohttp wraps these twice per request, and they do not see all that the router does.
    """

    async def guarded(request: web.BaseRequest) -> web.StreamResponse:
        try:
            response = await handler(request)
        except (asyncio.CancelledError, ConnectionError):
            count(CLIENT_GONE)
            raise
        except Exception as error:
            response = _answer(error, request)
            if isinstance(error, web.HTTPException):
                refusals.unrouted(error, request.method, request.path)
        failed = response.status >= 400
        if failed:
            count(response.status)
        if (X_REQUEST_ID in request.headers or (failed and GIVEN_ID in request)) and not response.prepared:
            known = request_id(request) or request.get(GIVEN_ID)
            if known is not None:
                response.headers[X_REQUEST_ID] = known
        return response

    return guarded


def _answer(error: Exception, request: web.BaseRequest) -> web.Response:
    if isinstance(error, ServingError):
        response = error_response(error)
        if isinstance(error, BrokenBody):
            response.force_close()
        return response
    if isinstance(error, web.HTTPException):
        return _of_http_exception(error, request)
    if isinstance(error, web.RequestPayloadError):
        response = v2_error(400, "the request's body ended early or is not encoded as its headers say")
        response.force_close()
        return response
    log.error("%s %.200s failed in the gateway itself", request.method, request.path, exc_info=error)
    return v2_error(500, "internal error")


def _of_http_exception(error: web.HTTPException, request: web.BaseRequest) -> web.Response:
    path = request.path[:200]
    if isinstance(error, web.HTTPNotFound):
        message = f"there is nothing at {path}; GET /v2/models lists the models"
    elif isinstance(error, web.HTTPMethodNotAllowed):
        message = f"{path} takes {' or '.join(sorted(error.allowed_methods))}, not {error.method}"
    else:
        message = error.text or error.reason
    response = v2_error(error.status, message)
    for name, value in error.headers.items():
        if name.lower() not in ("content-type", "content-length"):
            response.headers[name] = value
    return response


_receive = web.RequestHandler.data_received


class V2Protocol(web.RequestHandler):
    """aiohttp's protocol with other error pages: for requests that cannot be parsed, answers that cannot be sent."""

    #: Who is told of what is refused; given by the server.
    refusals: Refusals
    #: Bytes of a head that has not ended yet, at least and at most; the body that is being read; whether a head was too
    #: large.
    _head_size = _head_most = 0
    _body: Any = None
    _refused = False
    #: Who speaks HTTP/2; what came first, as long as it may be that.
    _http2: TakesOver | None = None
    _first = b""

    def look_first(self, http2: TakesOver) -> None:
        """Before the first byte: a connection that begins with HTTP/2's preface is not this protocol's."""
        self._http2 = http2
        self.data_received = self._first_received  # type: ignore[method-assign]

    def _first_received(self, data: bytes) -> None:
        transport, http2 = self.transport, self._http2
        self._first = data = self._first + data
        if transport is None or http2 is None or (len(data) < len(PREFACE) and PREFACE.startswith(data)):
            return
        self._first = b""
        del self.data_received
        if data.startswith(PREFACE):
            self.transport = None  # or it would be closed
            self.connection_lost(None)
            http2(transport, data)
        else:
            transport.set_protocol(self)  # uvloop knows the method by heart
            self.data_received(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # aiohttp's own timer, set earlier: whoever sends nothing, or a head byte by byte, holds a place.
        if self._keepalive_handle is not None:
            self._keepalive_handle.cancel()
        self._next_keepalive_close_time = self._loop.time() + FIRST_REQUEST
        self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends no more: its answer is still sent, where it has asked and is still there to read it.

        True keeps the connection open. Whether the client has only ended its side, or is gone, shows when something is
        sent: an interim answer, which every client of HTTP/1.1 passes over. What comes back is looked for a few times.
        """
        transport = self.transport
        idle = self._waiter is not None and not self._waiter.done()
        if transport is None or transport.get_extra_info("sslcontext") is not None or idle or not self._request_count:
            return False
        if not self._close:  # uvloop says it again when it reads on
            self._loop.call_soon(self._half_closed, 3)
        return True

    def _half_closed(self, turns: int) -> None:
        """Once aiohttp has made a request of what it has read, which takes it a turn or two of the loop."""
        transport, request = self.transport, self._current_request
        if transport is None or self._close:
            return
        if request is None and turns:
            self._loop.call_soon(self._half_closed, turns - 1)
        elif request is None or not request.content.is_eof():
            transport.close()  # it had not sent all of it
        else:
            self.close()  # once this one is answered
            if request.version == HttpVersion11 and not request.writer.output_size:
                transport.write(INTERIM)
                for seconds in _LOOKS:
                    self._loop.call_later(seconds, self._leave_if_gone)

    def _leave_if_gone(self) -> None:
        """Ends the connection, and with it the request, where the client has refused what was sent."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        poll = select.poll()
        poll.register(transport.get_extra_info("socket").fileno(), 0)
        if poll.poll(0):
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """The parser limits each line of a head; this limits all of them together, also where they come in pieces."""
        if self._refused:
            return
        count = self._request_count
        _receive(self, data)
        if self._request_count != count:
            payload, most = self._messages[-1][1], self._head_most + len(data)
            self._body = None if payload.is_eof() else payload
            self._head_most = len(data)
            self._head_size = 0
            if most > self.max_field_size:
                self._check_heads(self._request_count - count)
        elif self._body is not None:
            self._head_most = len(data)
            if self._body.is_eof():
                self._body = None
        else:
            self._head_size += len(data)
            self._head_most += len(data)
            if self._head_size > self.max_field_size:
                self._refuse(len(self._messages))

    def _check_heads(self, new: int) -> None:
        """Of so many requests that have just come."""
        first = len(self._messages) - new
        for number in range(first, first + new):
            if too_large(self._messages[number][0], self.max_field_size):
                return self._refuse(number)

    def _refuse(self, number: int) -> None:
        """A head is too large: from its message on nothing is read."""
        self._refused = True
        while len(self._messages) > number:
            self._messages.pop()
        self._messages.append(of_head(self.max_field_size))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def idle_since(self) -> float | None:
        """Since when it waits for a request; None: it has one, is new, or ends."""
        if self._current_request is not None or self._waiter is None or self._close or self._force_close:
            return None
        return self._next_keepalive_close_time - (KEEP_ALIVE if self._request_count else FIRST_REQUEST)

    @property
    def busy(self) -> bool:
        """Whether it has a request, or part of one."""
        return self._current_request is not None or bool(self._messages)

    def let_go(self) -> None:
        """Each of its answers is its last."""
        self._request_handler = _closing(self._request_handler)

    def only_probes(self, refused: Callable[[], None]) -> None:
        """It is one too many: it may ask how the server is, once, and nothing else, which `refused` is told of."""
        self._request_handler = _probes(self._request_handler, refused)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if isinstance(exc, ConnectionError) or request.writer.output_size > 0:
            # aiohttp ends the connection at this, and says nothing.
            raise ConnectionError("the client is gone, or its answer has begun: it cannot become an error any more")
        if status >= 500:
            log.error("an answer could not be sent", exc_info=exc)
            response = v2_error(status, "internal error")
        else:
            status, message = _of_parser(status, exc)
            self.refusals.unparsed(status, message, request.remote)
            response = v2_error(status, message)
        response.force_close()
        return response


def _of_parser(status: int, exc: BaseException | None) -> tuple[int, str]:
    if isinstance(exc, LineTooLong):
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request's first line or one of its headers is too long"
    if isinstance(exc, BadHttpMethod):
        return status, "the request's method is unknown, or this is no HTTP (perhaps TLS on a plain port)"
    if isinstance(exc, InvalidURLError):
        return status, "the request's URL is malformed"
    # The first line says what is wrong; the others repeat what was sent.
    what = exc.message.splitlines()[0].rstrip(" :.") if isinstance(exc, HttpProcessingError) and exc.message else ""
    return status, f"the request is no well-formed HTTP{f': {what}' if what else ''}"


# ---- whom it answers what ------------------------------------------------------------------------


def _probes(handler: Handler | None, refused: Callable[[], None]) -> Handler | None:
    """`handler` for what probes ask, for nothing else."""
    if handler is None:
        return None

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path in FOR_PROBES:
            response = await handler(request)
        else:
            refused()
            response = v2_error(503, TOO_MANY_SAYS)
        if response.status == 503:
            response.headers.setdefault("Retry-After", "1")
        response.force_close()
        return response

    return answer


def _closing(handler: Handler | None) -> Handler | None:
    """`handler`, each of whose answers says that it is the connection's last."""
    if handler is None:
        return None

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        request._message = request._message._replace(should_close=True)  # as if the client had asked for it
        response = await handler(request)
        response.force_close()
        return response

    return answer
