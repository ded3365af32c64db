"""What operators ask: `GET /status`. On the main port, or on a port of its own (`server.admin`)."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.web_request import Request

from .. import __version__
from .errors import json_response
from .processes import read_rss

if TYPE_CHECKING:
    from .registry import Registry


class AdminRoutes:
    """Handlers for operators; `table` names their paths."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._started = time.monotonic()

    def table(self) -> list[web.RouteDef]:
        return [web.get("/status", self.status)]

    async def status(self, request: Request) -> web.Response:
        """`{"server": {…}, "models": […]}`; seconds and bytes."""
        readiness = self._registry.readiness()
        rss = await asyncio.to_thread(read_rss, os.getpid())
        server = {
            "version": __version__,
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - self._started, 3),
            "ready": readiness.ready,
            "reasons": readiness.reasons,
            "memory": {"rss": rss},
        }
        return json_response({"server": server, "models": [version.describe() for version in self._registry.all()]})
