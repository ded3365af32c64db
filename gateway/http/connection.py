"""How connections are served: whatever is raised becomes a V2 error, whoever sends nothing loses its place.

`guard` stands round the whole application, so that what a handler, the router or aiohttp itself raises
becomes a V2 error; `V2Protocol` answers what its parser refuses before there is a request. `make_runner` puts both
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
from .bodies import BrokenBody
from .crowd import FOR_PROBES, Crowd, Readers
from .errors import GIVEN_ID, X_REQUEST_ID, error_response, request_id, v2_error
from .match_cache import MatchCache

log = logging.getLogger("modelhub.http")

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

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


def make_runner(
    app: web.Application,
    *,
    grace: float,
    max_connections: int,
    count: Callable[[int], None],
    write_timeout: float = 60.0,
) -> HttpRunner:
    """The server of an application of ours; sites are started on it after `setup()`.

    `grace`: seconds that its requests have at the end. `count` is told the status of each error. `write_timeout`:
    seconds that a client may read nothing of its answer.
    """
    return HttpRunner(
        app,
        limit=max_connections,
        count=count,
        write_timeout=write_timeout,
        access_log=None,
        auto_decompress=False,  # a worker inflates, within its limit: a bomb hurts its own model only
        handler_cancellation=True,  # a client that leaves takes its request along
        keepalive_timeout=KEEP_ALIVE,
        shutdown_timeout=grace,
    )


# ---- errors --------------------------------------------------------------------------------------


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


class V2Protocol(web.RequestHandler):
    """aiohttp's protocol with other error pages: for requests that cannot be parsed, answers that cannot be sent."""

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

    def only_probes(self) -> None:
        """It is one too many: it may ask how the server is, once, and nothing else."""
        self._request_handler = _probes(self._request_handler)

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


# ---- the server ----------------------------------------------------------------------------------


def _probes(handler: Handler | None) -> Handler | None:
    """`handler` for what probes ask, for nothing else."""
    if handler is None:
        return None

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = await handler(request) if request.path in FOR_PROBES else v2_error(503, TOO_MANY_SAYS)
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


class _Server(web.Server):
    """aiohttp's low-level server with our protocol and a limit of connections."""

    crowd: Crowd
    watching: asyncio.Task[None]
    ending = False

    def let_go(self) -> None:
        """Whoever is answered from now on is told to go elsewhere for the next."""
        self.ending = True
        for handler in self._connections:
            assert isinstance(handler, V2Protocol)
            handler.let_go()

    def __call__(self) -> V2Protocol:
        return V2Protocol(self, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        assert isinstance(handler, V2Protocol)
        if self.ending:
            handler.let_go()
        if self.crowd.has_place():
            return
        if self.crowd.has_place_for_probe():
            handler.only_probes()
        else:
            transport.write(TOO_MANY)
            transport.close()


class HttpRunner(web.AppRunner):
    """Serves an application with `guard` round it and V2Protocol below it."""

    def __init__(
        self, app: web.Application, *, limit: int, count: Callable[[int], None], write_timeout: float, **more: object
    ) -> None:
        super().__init__(app, **more)  # type: ignore[arg-type]
        self._limit = limit
        self._write_timeout = write_timeout
        self._count = count

    async def _make_server(self) -> web.Server:
        inner = await super()._make_server()
        server = _Server(
            guard(MatchCache(inner.request_handler), self._count),
            request_factory=inner.request_factory,
            handler_cancellation=inner.handler_cancellation,
            loop=asyncio.get_running_loop(),
            **inner._kwargs,
        )
        connections: Any = server._connections
        server.crowd = Crowd(connections, self._limit)
        readers = Readers(connections, self._write_timeout)
        server.watching = asyncio.create_task(readers.watch(), name="clients that do not read")
        return server

    def let_go(self) -> None:
        """Each answer says `Connection: close` from now on; connections that come are taken all the same."""
        if isinstance(self._server, _Server):
            self._server.let_go()

    async def refuse(self) -> None:
        """No connection is taken any more; those that are open go on."""
        for site in list(self.sites):
            await site.stop()

    @property
    def busy(self) -> bool:
        """Whether any connection has a request."""
        connections: Any = self._server._connections if self._server is not None else ()
        return any(each.busy for each in connections)

    async def _cleanup_server(self) -> None:
        if isinstance(self._server, _Server):
            self._server.watching.cancel()
        await super()._cleanup_server()


class UnixSite(web.SockSite):
    """A Unix socket that is listened on: aiohttp's own site for sockets takes only those of TCP."""

    async def start(self) -> None:
        await web.BaseSite.start(self)
        server = self._runner.server
        assert server is not None
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(server, sock=self._sock, backlog=self._backlog)
