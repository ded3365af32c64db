"""Triton's extensions of the V2 protocol: the repository index, statistics, the model configuration."""

from __future__ import annotations

import orjson
from aiohttp import web
from aiohttp.web_request import Request

from ...protocol.errors import InvalidRequest
from ..dataplane.descriptions import Descriptions
from ..dataplane.statistics import statistics
from .errors import json_response


class RepositoryRoutes:
    """`POST /v2/repository/index`."""

    def __init__(self, about: Descriptions) -> None:
        self._about = about

    def table(self) -> list[web.RouteDef]:
        return [web.post("/v2/repository/index", self.index)]

    async def index(self, request: Request) -> web.Response:
        return json_response(await self._about.index(only_ready=_only_ready(await request.read())))


def _only_ready(body: bytes) -> bool:
    """The request's `ready`; clients send an empty body too."""
    if not body.strip():
        return False
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None
    ready = asked.get("ready", False) if isinstance(asked, dict) else None
    if not isinstance(ready, bool):
        raise InvalidRequest('the body must be empty or an object like {"ready": true}')
    return ready


class StatsRoutes:
    """Handlers of `/stats` and `/config`; `table` names the paths."""

    def __init__(self, about: Descriptions) -> None:
        self._about = about

    def table(self) -> list[web.RouteDef]:
        return [
            web.get("/v2/models/{model}/stats", self.stats),
            web.get("/v2/models/{model}/versions/{version}/stats", self.stats),
            web.get("/v2/models/stats", self.all_stats),
            web.get("/v2/models/{model}/config", self.config),
            web.get("/v2/models/{model}/versions/{version}/config", self.config),
        ]

    async def stats(self, request: Request) -> web.Response:
        match = request.match_info
        return json_response(await statistics(self._about.registry, match["model"], match.get("version")))

    async def all_stats(self, request: Request) -> web.Response:
        return json_response(await statistics(self._about.registry))

    async def config(self, request: Request) -> web.Response:
        match = request.match_info
        return json_response(await self._about.config(match["model"], match.get("version")))
