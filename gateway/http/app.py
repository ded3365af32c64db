"""The HTTP applications: which routes there are on which port (`connection.make_runner` makes a server of one)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web

from ..dataplane.control import Control
from ..dataplane.descriptions import Descriptions
from ..dataplane.inference import Inference
from ..metrics.scrape import Metrics
from ..telemetry.counters import Counters
from .admin import ControlRoutes, MetricsRoutes, StatusRoutes
from .inference import HttpFront
from .kserve_v1 import KserveV1Routes
from .mlflow import MlflowRoutes
from .openapi import OpenApiRoutes
from .streams import StreamRoutes
from .v2 import V2Routes
from .v2_extensions import RepositoryRoutes, StatsRoutes

COUNTERS = web.AppKey("COUNTERS", Counters)

#: Bytes of a body that only has a few settings in it.
SMALL_BODY = 64 << 10


def make_app(
    inference: Inference, about: Descriptions, metrics: Metrics, counters: Counters, control: Control
) -> web.Application:
    """The application of the main port; `control` says whether the operators' routes are open on it."""
    front = HttpFront(inference)
    app = web.Application(client_max_size=SMALL_BODY)
    app[COUNTERS] = counters
    app.add_routes(V2Routes(front, about).table())
    app.add_routes(StreamRoutes(front).table())
    app.add_routes(MlflowRoutes(front).table())
    app.add_routes(KserveV1Routes(front).table())
    app.add_routes(RepositoryRoutes(about).table())
    app.add_routes(StatsRoutes(about).table())
    app.add_routes(OpenApiRoutes(about).table())
    app.add_routes(MetricsRoutes(metrics, about).table())
    app.add_routes(ControlRoutes(control).table())
    if control.is_open:
        app.add_routes(StatusRoutes(about, control).table())
    app.cleanup_ctx.append(_watch_loop)
    return app


def make_admin_app(about: Descriptions, control: Control) -> web.Application:
    """The application of an admin port of its own."""
    app = web.Application(client_max_size=SMALL_BODY)
    app.add_routes(StatusRoutes(about, control).table())
    app.add_routes(RepositoryRoutes(about).table())
    app.add_routes(ControlRoutes(control).table())
    return app


async def _watch_loop(app: web.Application) -> AsyncIterator[None]:
    watch = asyncio.create_task(app[COUNTERS].watch_loop(), name="event loop lag")
    yield
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)
