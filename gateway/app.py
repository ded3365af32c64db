"""The HTTP application: which routes there are, and how aiohttp is told to serve them.

`server.py` makes one for the main port (`make_app`), perhaps one for the admin port (`make_admin_app`), and
listens with `make_runner`.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.web_request import Request

from ..config.server import ServerSettings
from .errors import TOO_MANY, V2Protocol, guard
from .metrics import Metrics
from .quick_match import QuickMatch
from .routes_admin import AdminRoutes
from .routes_control import Control, ControlRoutes, closed_routes
from .routes_models import ModelRoutes
from .routes_openapi import OpenApiRoutes
from .routes_repository import RepositoryRoutes
from .routes_stats import StatsRoutes
from .routes_stream import StreamRoutes
from .routes_v2 import V2Routes

if TYPE_CHECKING:
    from .bodies import Bodies
    from .registry import Registry

METRICS = web.AppKey("METRICS", Metrics)
SETTINGS = web.AppKey("SETTINGS", ServerSettings)

#: Seconds that an idle connection is kept: longer than the load balancers in front do (up to 600 s), so that
#: none of them sends a request into a connection that is being closed.
KEEP_ALIVE = 620.0
#: Open files that are kept for everything but connections: workers' pipes and journals, models, logs.
OTHER_FILES = 256
#: Bytes of a body that only has a few settings in it.
SMALL_BODY = 1 << 20


def make_app(
    registry: Registry, settings: ServerSettings, metrics: Metrics, bodies: Bodies, control: Control | None = None
) -> web.Application:
    """The application of the main port; with `control` the operators' routes are on it too."""
    app = _application(settings, metrics)
    app.add_routes(V2Routes(registry, bodies, control=control is not None).table())
    app.add_routes(StreamRoutes(registry, bodies).table())
    app.add_routes(ModelRoutes(registry, bodies).table())
    app.add_routes(RepositoryRoutes(registry).table())
    app.add_routes(StatsRoutes(registry).table())
    app.add_routes(OpenApiRoutes(registry).table())
    app.add_routes([_metrics_route(registry, metrics)])
    if control is not None:
        app.add_routes(AdminRoutes(registry).table())
        app.add_routes(ControlRoutes(control).table())
    else:
        app.add_routes(closed_routes())
    app.cleanup_ctx.append(_watch_loop)
    return app


def make_admin_app(registry: Registry, settings: ServerSettings, metrics: Metrics, control: Control) -> web.Application:
    """The application of an admin port of its own."""
    app = _application(settings, metrics)
    app.add_routes(AdminRoutes(registry).table())
    app.add_routes(RepositoryRoutes(registry).table())
    app.add_routes(ControlRoutes(control).table())
    return app


def make_runner(app: web.Application) -> web.AppRunner:
    """The server of an application of ours; sites are started on it after `setup()`."""
    return _Runner(
        app,
        access_log=None,
        auto_decompress=False,  # a worker inflates, within its limit: a bomb hurts its own model only
        handler_cancellation=True,  # a client that leaves takes its request along
        keepalive_timeout=KEEP_ALIVE,
        shutdown_timeout=app[SETTINGS].shutdown_grace,
    )


def _application(settings: ServerSettings, metrics: Metrics) -> web.Application:
    app = web.Application(client_max_size=SMALL_BODY)
    app[SETTINGS] = settings
    app[METRICS] = metrics
    return app


async def _watch_loop(app: web.Application) -> AsyncIterator[None]:
    watch = asyncio.create_task(app[METRICS].watch_loop(), name="event loop lag")
    yield
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)


def _metrics_route(registry: Registry, metrics: Metrics) -> web.RouteDef:
    async def scrape(request: Request) -> web.Response:
        body, content_type = await metrics.scrape(registry.all(), request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    return web.get("/metrics", scrape)


class _Server(web.Server):
    """aiohttp's low-level server with our protocol and a limit of connections."""

    max_connections = 0

    def __call__(self) -> V2Protocol:
        return V2Protocol(self, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if len(self._connections) > self.max_connections:
            transport.write(TOO_MANY)
            transport.close()


def _max_connections(settings: ServerSettings) -> int:
    """The setting, or what the limit of open files leaves for connections."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(settings.max_connections, max(files - OTHER_FILES, 1))


class _Runner(web.AppRunner):
    """Serves an application with `guard` round it and V2Protocol below it."""

    async def _make_server(self) -> web.Server:
        inner = await super()._make_server()
        server = _Server(
            guard(QuickMatch(inner.request_handler), self.app[METRICS].error),
            request_factory=inner.request_factory,
            handler_cancellation=inner.handler_cancellation,
            loop=asyncio.get_running_loop(),
            **inner._kwargs,
        )
        server.max_connections = _max_connections(self.app[SETTINGS])
        return server
