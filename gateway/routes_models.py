"""The routes of other servers' clients: MLflow's scoring server, and KServe's V1 protocol.

    POST /models/{model}[/versions/{version}]/invocations      MLflow: {"predictions"}, errors {"error_code", "message"}
    POST /invocations                                          the same, where exactly one model is served
    GET  /ping, /health, /version                              MLflow's
    GET  /, /v1/models, /v1/models/{model}                     KServe V1: live, names, readiness
    POST /v1/models/{model}:predict                            KServe V1: {"predictions"}, errors {"error"}

Bodies are not read here: the worker's dialects (`workers/invocations.py`, `workers/kserve_v1.py`) do that.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from importlib import metadata
from typing import TYPE_CHECKING

from aiohttp import hdrs, web
from aiohttp.web_request import Request

from .. import __version__
from ..protocol.errors import NotFound, ServingError
from ..protocol.kinds import INVOCATIONS, V1
from ..protocol.mlflow_codes import error_code
from ..protocol.statuses import statuses
from .errors import JSON, json_response
from .infer import answer

if TYPE_CHECKING:
    from .bodies import Bodies
    from .model import ModelVersion
    from .registry import Registry


def _mlflow_version() -> str:
    try:
        return metadata.version("mlflow")
    except metadata.PackageNotFoundError:
        return __version__


#: Read from the disk once, when nothing is served yet.
MLFLOW_VERSION = _mlflow_version()

Find = Callable[[Request], "ModelVersion"]


class ModelRoutes:
    """Handlers of these paths; `table` names them."""

    def __init__(self, registry: Registry, bodies: Bodies) -> None:
        self._registry = registry
        self._bodies = bodies

    def table(self) -> list[web.RouteDef]:
        invoke = self._invocations(self._named)
        paths = ("/models/{model}/invocations", "/models/{model}/versions/{version}/invocations")
        return [
            web.post("/v1/models/{model}:predict", self.predict),
            *(web.post(path, invoke) for path in paths),
            web.post("/invocations", self._invocations(self._only)),
            *(web.route("*", path, self.wrong_method) for path in (*paths, "/invocations")),
            web.get("/ping", self.ping),
            web.get("/health", self.ping),
            web.get("/version", self.version),
            web.get("/", self.live),
            web.get("/v1/models", self.models),
            web.get("/v1/models/{model}", self.model),
        ]

    def _invocations(self, find: Find) -> Callable[[Request], Awaitable[web.StreamResponse]]:
        async def invocations(request: Request) -> web.StreamResponse:
            try:
                return await answer(find(request), request, self._bodies, INVOCATIONS)
            except ServingError as error:
                return mlflow_error(statuses(error).http, error.message, error.retry_after)

        return invocations

    async def wrong_method(self, request: Request) -> web.Response:
        response = mlflow_error(405, f"{request.path[:200]} takes POST, not {request.method[:20]}")
        response.headers[hdrs.ALLOW] = "POST"
        return response

    async def predict(self, request: Request) -> web.StreamResponse:
        return await answer(self._named(request), request, self._bodies, V1)

    async def ping(self, request: Request) -> web.Response:
        """200 when the server is ready, else 503; the body is MLflow's empty line."""
        status = 200 if self._registry.readiness().ready else 503
        return web.Response(body=b"\n", status=status, content_type=JSON)

    async def live(self, request: Request) -> web.Response:
        """What KServe's V1 clients ask for."""
        return json_response({"status": "alive"})

    async def version(self, request: Request) -> web.Response:
        """The version of the shared environment's MLflow; each model has its own environment's."""
        return web.Response(body=MLFLOW_VERSION.encode(), content_type=JSON)

    async def models(self, request: Request) -> web.Response:
        return json_response({"models": self._registry.names()})

    async def model(self, request: Request) -> web.Response:
        version = self._named(request)
        ready = version.ready
        return json_response({"name": version.name, "ready": ready}, 200 if ready else 503)

    def _named(self, request: Request) -> ModelVersion:
        match = request.match_info
        return self._registry.find(match["model"], match.get("version"))

    def _only(self, request: Request) -> ModelVersion:
        names = self._registry.names()
        if len(names) != 1:
            some = f"one of {', '.join(names[:5])}{', …' if len(names) > 5 else ''}" if names else "there are none"
            raise NotFound(f"this server has {len(names)} models: post to /models/<name>/invocations ({some})")
        return self._registry.find(names[0])


def mlflow_error(status: int, message: str, retry_after: float | None = None) -> web.Response:
    """`{"error_code", "message"}`, with `Retry-After` where a retry can help."""
    text = message.encode("utf-8", "replace").decode()
    response = json_response({"error_code": error_code(status), "message": text}, status)
    if retry_after is not None:
        response.headers[hdrs.RETRY_AFTER] = str(max(1, math.ceil(retry_after)))
    return response
