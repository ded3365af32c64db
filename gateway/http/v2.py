"""The Open Inference Protocol (KServe V2) over REST: server, models, readiness, inference."""

from __future__ import annotations

from aiohttp import web
from aiohttp.web_request import Request

from ...protocol.kinds import INFER
from ..dataplane.descriptions import Descriptions
from .errors import JSON, json_response
from .inference import HttpFront

_MODEL = "/v2/models/{model}"
_VERSION = "/v2/models/{model}/versions/{version}"


class V2Routes:
    """Handlers of the protocol's paths; `table` names them."""

    def __init__(self, front: HttpFront, about: Descriptions) -> None:
        self._front = front
        self._about = about

    def table(self) -> list[web.RouteDef]:
        """All routes, the hottest first: the router tries those of one prefix in this order."""
        return [
            self._front.route(f"{_MODEL}/infer", self.infer, INFER),
            self._front.route(f"{_VERSION}/infer", self.infer, INFER),
            web.get(f"{_MODEL}/ready", self.model_ready),
            web.get(f"{_VERSION}/ready", self.model_ready),
            web.get(_MODEL, self.model_metadata),
            web.get(_VERSION, self.model_metadata),
            web.get("/v2/models", self.models),
            web.get("/v2/health/live", self.live),
            web.get("/v2/health/ready", self.ready),
            web.get("/v2", self.server),
            web.get("/v2/", self.server),
        ]

    async def infer(self, request: Request) -> web.StreamResponse:
        return await self._front.answer(request, INFER)

    async def model_ready(self, request: Request) -> web.Response:
        match = request.match_info
        version = self._about.registry.find(match["model"], match.get("version"))
        ready = version.ready
        return json_response({"name": version.name, "ready": ready}, 200 if ready else 503)

    async def model_metadata(self, request: Request) -> web.Response:
        match = request.match_info
        return json_response(await self._about.model(match["model"], match.get("version")))

    async def models(self, request: Request) -> web.Response:
        return json_response({"models": self._about.registry.names()})

    async def live(self, request: Request) -> web.Response:
        return web.Response(body=b'{"live":true}', content_type=JSON)

    async def ready(self, request: Request) -> web.Response:
        """`live` says the same as `ready`: the protocol's text prints that key here, its clients read the other."""
        readiness = self._about.registry.readiness()
        if readiness.ready:
            return web.Response(body=b'{"ready":true,"live":true}', content_type=JSON)
        return json_response({"ready": False, "live": False, "reasons": readiness.reasons}, 503)

    async def server(self, request: Request) -> web.Response:
        return json_response(self._about.server())
