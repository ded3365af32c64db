"""What a client is told when something fails: one shape of body for every route.

`guard` stands round the whole application, so that what a handler, the router or aiohttp itself raises
becomes a V2 error; `V2Protocol` answers what its parser refuses before there is a request.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import orjson
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMethod, HttpProcessingError, InvalidURLError, LineTooLong
from multidict import istr

from ..protocol.errors import ServingError
from ..protocol.statuses import CLIENT_GONE, statuses

log = logging.getLogger("modelhub.http")

JSON = "application/json"  # exactly: a charset makes some clients drop the body
X_REQUEST_ID = istr("X-Request-Id")
MAX_REQUEST_ID = 128
#: Where a request keeps the id that it was given because it came without one (request_log.py).
GIVEN_ID = web.RequestKey("GIVEN_ID", str)


def status_of(error: BaseException) -> int:
    """The status that a request ends with when this was raised while it was answered."""
    if isinstance(error, ServingError):
        return statuses(error).http
    if isinstance(error, (asyncio.CancelledError, ConnectionError)):
        return CLIENT_GONE
    if isinstance(error, web.HTTPException):
        return error.status
    return 400 if isinstance(error, web.RequestPayloadError) else 500


def json_response(data: object, status: int = 200) -> web.Response:
    """A JSON answer, content type without a charset; NaN and infinities become null."""
    return web.Response(body=orjson.dumps(data), status=status, content_type=JSON)


def v2_error(status: int, message: str) -> web.Response:
    """`{"error": message}`; what is no Unicode text in the message is replaced."""
    return json_response({"error": message.encode("utf-8", "replace").decode()}, status)


def error_response(error: ServingError) -> web.Response:
    """The V2 answer to an error of ours, with `Retry-After` where a retry can help."""
    response = v2_error(statuses(error).http, error.message)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    return response


def request_id(request: web.BaseRequest) -> str | None:
    """The client's `X-Request-Id`; None where there is none, or one that is not safe to repeat."""
    return safe_id(request.headers.get(X_REQUEST_ID))


def safe_id(given: str | None) -> str | None:
    """An id that a client gave to its request; None where it is not safe to repeat in a header."""
    if given and len(given) <= MAX_REQUEST_ID and given.isascii() and given.isprintable():
        return given
    return None


Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def guard(handler: Handler, count: Callable[[int], None]) -> Handler:
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
        return error_response(error)
    if isinstance(error, web.HTTPException):
        return _of_http_exception(error, request)
    if isinstance(error, web.RequestPayloadError):
        response = v2_error(status_of(error), "the request's body ended early or is not encoded as its headers say")
        response.force_close()
        return response
    log.error("%s %.200s failed in the gateway itself", request.method, request.path, exc_info=error)
    return v2_error(status_of(error), "internal error")


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


#: The answer to a connection that is one too many.
TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: %d\r\nRetry-After: 1\r\n"
    b"Connection: close\r\n\r\n%s"
) % (len(_MESSAGE := b'{"error":"too many connections (server.max_connections): try again later"}'), _MESSAGE)
#: Seconds that a new connection may take to send the head of its first request.
FIRST_REQUEST = 60.0


class V2Protocol(web.RequestHandler):
    """aiohttp's protocol with other error pages: for requests that cannot be parsed, answers that cannot be sent."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # aiohttp's own timer, set earlier: whoever sends nothing, or a head byte by byte, holds a place.
        if self._keepalive_handle is not None:
            self._keepalive_handle.cancel()
        self._next_keepalive_close_time = self._loop.time() + FIRST_REQUEST
        self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)

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
            log.debug("a request of %s could not be parsed: %s", request.remote, exc)
            response = v2_error(*_of_parser(status, exc))
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
