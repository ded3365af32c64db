"""The Open Inference Protocol (KServe V2) over REST: server, models, readiness, inference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import HttpVersion11, web
from aiohttp.web_request import Request

from .. import __version__
from .errors import JSON, json_response
from .infer import answer, check_early

if TYPE_CHECKING:
    from .bodies import Bodies
    from .model import ModelVersion
    from .registry import Registry

#: What `GET /v2` lists: exactly what works.
EXTENSIONS = ["binary_tensor_data", "generate", "model_configuration", "statistics"]
#: And this where models can be loaded and unloaded too.
REPOSITORY = "model_repository"

#: And this over gRPC alone: the body of a REST request, where a client says its priority, is not read here.
SCHEDULE_POLICY = "schedule_policy"

_MODEL = "/v2/models/{model}"
_VERSION = "/v2/models/{model}/versions/{version}"


class V2Routes:
    """Handlers of the protocol's paths; `table` names them."""

    def __init__(self, registry: Registry, bodies: Bodies, *, control: bool = False) -> None:
        """`control`: loads and unloads are open on this port."""
        self._registry = registry
        self._bodies = bodies
        self._extensions = [*EXTENSIONS, REPOSITORY] if control else EXTENSIONS

    def table(self) -> list[web.RouteDef]:
        """All routes, the hottest first: the router tries those of one prefix in this order."""
        expect = self._expect
        return [
            web.post(f"{_MODEL}/infer", self.infer, expect_handler=expect),
            web.post(f"{_VERSION}/infer", self.infer, expect_handler=expect),
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
        return await answer(self._find(request), request, self._bodies)

    async def model_ready(self, request: Request) -> web.Response:
        version = self._find(request)
        ready = version.ready
        return json_response({"name": version.name, "ready": ready}, 200 if ready else 503)

    async def model_metadata(self, request: Request) -> web.Response:
        version = self._find(request)
        metadata = await version.metadata()
        versions = [each.version for each in self._registry.versions(version.name) if each.version]
        return json_response({"name": version.name, **({"versions": versions} if versions else {}), **metadata})

    async def models(self, request: Request) -> web.Response:
        return json_response({"models": self._registry.names()})

    async def live(self, request: Request) -> web.Response:
        return web.Response(body=b'{"live":true}', content_type=JSON)

    async def ready(self, request: Request) -> web.Response:
        """`live` says the same as `ready`: the protocol's text prints that key here, its clients read the other."""
        readiness = self._registry.readiness()
        if readiness.ready:
            return web.Response(body=b'{"ready":true,"live":true}', content_type=JSON)
        return json_response({"ready": False, "live": False, "reasons": readiness.reasons}, 503)

    async def server(self, request: Request) -> web.Response:
        return json_response({"name": "modelhub-serving", "version": __version__, "extensions": self._extensions})

    def _find(self, request: Request) -> ModelVersion:
        match = request.match_info
        return self._registry.find(match["model"], match.get("version"))

    async def _expect(self, request: Request) -> None:
        """A client that waits for leave to send its body is told first that it is too large, or too much at present."""
        check_early(self._find(request), request, self._bodies)
        if request.version < HttpVersion11:
            return  # such a client knows no interim answers
        if request.headers["Expect"].lower() != "100-continue":
            raise web.HTTPExpectationFailed(text=f"Expect: {request.headers['Expect'][:100]} is not understood")
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer has not begun yet
