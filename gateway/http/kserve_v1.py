"""The routes of KServe's V1 protocol.

    GET  /, /v1/models, /v1/models/{model}     live, names, readiness
    POST /v1/models/{model}:predict            {"predictions"}, errors {"error"}
    POST /v1/models/{model}:explain            501: there are no explainers here

Bodies are not read here: the worker's dialect (`workers/dialects/kserve_v1.py`) does that.
"""

from __future__ import annotations

from aiohttp import web
from aiohttp.web_request import Request

from ...protocol.errors import NotSupported
from ...protocol.kinds import PATHS, V1
from ..models.registry import Registry
from .errors import json_response
from .inference import HttpFront

#: Without a verb: GET …:predict is a wrong method, and no model of that name.
_NAME = "[^{}/:]+"


class KserveV1Routes:
    """Handlers of these paths; `table` names them."""

    def __init__(self, front: HttpFront) -> None:
        self._front = front
        self._registry: Registry = front.inference.registry

    def table(self) -> list[web.RouteDef]:
        return [
            self._front.route(PATHS[V1], self.predict, V1),
            web.post("/v1/models/{model}:explain", self.explain),
            web.get("/", self.live),
            web.get("/v1/models", self.models),
            web.get(f"/v1/models/{{model:{_NAME}}}", self.model),
        ]

    async def predict(self, request: Request) -> web.StreamResponse:
        return await self._front.answer(request, V1)

    async def explain(self, request: Request) -> web.Response:
        name = self._registry.find(request.match_info["model"]).name
        raise NotSupported(f"explanations are not supported: ask for predictions with POST /v1/models/{name}:predict")

    async def live(self, request: Request) -> web.Response:
        """What KServe's V1 clients ask for."""
        return json_response({"status": "alive"})

    async def models(self, request: Request) -> web.Response:
        return json_response({"models": self._registry.names()})

    async def model(self, request: Request) -> web.Response:
        version = self._registry.find(request.match_info["model"])
        ready = version.ready
        return json_response({"name": version.name, "ready": ready}, 200 if ready else 503)
