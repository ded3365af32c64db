"""The server of an application: connections of ours, a limit of them, `guard` round requests, an end in steps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import web

from ..system.crowd import Crowd, Readers
from .connection import KEEP_ALIVE, TOO_MANY, TakesOver, V2Protocol, guard
from .match_cache import MatchCache
from .refusals import Refusals


def make_runner(
    app: web.Application,
    *,
    grace: float,
    max_connections: int,
    count: Callable[[int], None],
    write_timeout: float = 60.0,
    max_headers: int = 64 << 10,
    http2: TakesOver | None = None,
) -> HttpRunner:
    """The server of an application of ours; sites are started on it after `setup()`.

    `grace`: seconds that its requests have at the end. `count` is told the status of each error. `write_timeout`:
    seconds that a client may read nothing of its answer. `max_headers`: bytes of a request's first line and headers.
    `http2` is given the connections that speak it.
    """
    return HttpRunner(
        app,
        limit=max_connections,
        count=count,
        write_timeout=write_timeout,
        http2=http2,
        access_log=None,
        auto_decompress=False,  # a worker inflates, within its limit: a bomb hurts its own model only
        handler_cancellation=True,  # a client that leaves takes its request along
        keepalive_timeout=KEEP_ALIVE,
        shutdown_timeout=grace,
        max_line_size=max_headers,
        max_field_size=max_headers,
    )


class _Server(web.Server):
    """aiohttp's low-level server with our protocol and a limit of connections."""

    crowd: Crowd
    refusals: Refusals
    watching: asyncio.Task[None]
    http2: TakesOver | None = None
    ending = False

    def let_go(self) -> None:
        """Whoever is answered from now on is told to go elsewhere for the next."""
        self.ending = True
        for handler in self._connections:
            assert isinstance(handler, V2Protocol)
            handler.let_go()

    def __call__(self) -> V2Protocol:
        made = V2Protocol(self, loop=self._loop, **self._kwargs)
        made.refusals = self.refusals
        if self.http2 is not None:
            made.look_first(self.http2)
        return made

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        assert isinstance(handler, V2Protocol)
        if self.ending:
            handler.let_go()
        if self.crowd.has_place():
            return
        if self.crowd.has_place_for_probe():
            handler.only_probes(self._crowded)
        else:
            self._crowded()
            transport.write(TOO_MANY)
            transport.close()

    def _crowded(self) -> None:
        self.refusals.crowded(self.crowd.limit)


class HttpRunner(web.AppRunner):
    """Serves an application with `guard` round it and V2Protocol below it."""

    def __init__(
        self,
        app: web.Application,
        *,
        limit: int,
        count: Callable[[int], None],
        write_timeout: float,
        http2: TakesOver | None,
        **more: object,
    ) -> None:
        super().__init__(app, **more)  # type: ignore[arg-type]
        self._limit = limit
        self._write_timeout = write_timeout
        self._count = count
        self._http2 = http2

    async def _make_server(self) -> web.Server:
        inner = await super()._make_server()
        refusals = Refusals(self._count)
        server = _Server(
            guard(MatchCache(inner.request_handler), self._count, refusals),
            request_factory=inner.request_factory,
            handler_cancellation=inner.handler_cancellation,
            loop=asyncio.get_running_loop(),
            **inner._kwargs,
        )
        connections: Any = server._connections
        server.refusals = refusals
        server.http2 = self._http2
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
