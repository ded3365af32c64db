"""The routes of MLflow's scoring server.

    POST /models/{model}[/versions/{version}]/invocations      {"predictions"}, errors {"error_code", "message"}
    POST /invocations                                          the same, where exactly one model is served
    GET  /ping, /health, /version

Bodies are not read here: the worker's dialect (`workers/dialects/invocations.py`) does that.
"""

from __future__ import annotations

from importlib import metadata

from aiohttp import hdrs, web
from aiohttp.web_request import Request

from ... import __version__
from ...protocol.errors import NotFound, ServingError
from ...protocol.kinds import INVOCATIONS, PATHS
from ...protocol.mlflow_codes import error_code
from ..dataplane.statuses import statuses
from ..models.registry import Registry
from .bodies import BrokenBody
from .errors import JSON, json_response, say_when
from .inference import HttpFront


def _mlflow_version() -> str:
    try:
        return metadata.version("mlflow")
    except metadata.PackageNotFoundError:
        return __version__


#: Read from the disk once, when nothing is served yet.
MLFLOW_VERSION = _mlflow_version()


class MlflowRoutes:
    """Handlers of these paths; `table` names them."""

    def __init__(self, front: HttpFront) -> None:
        self._front = front
        self._registry: Registry = front.inference.registry

    def table(self) -> list[web.RouteDef]:
        paths = (PATHS[INVOCATIONS], "/models/{model}/versions/{version}/invocations", "/invocations")
        return [
            *(self._front.route(path, self.invocations, INVOCATIONS) for path in paths),
            *(web.route("*", path, self.wrong_method) for path in paths),
            web.get("/ping", self.ping),
            web.get("/health", self.ping),
            web.get("/version", self.version),
        ]

    async def invocations(self, request: Request) -> web.StreamResponse:
        try:
            model = None if "model" in request.match_info else self._only()
            return await self._front.answer(request, INVOCATIONS, model)
        except ServingError as error:
            response = mlflow_error(statuses(error).http, error.message)
            say_when(response, error)
            if isinstance(error, BrokenBody):
                response.force_close()
            return response

    async def wrong_method(self, request: Request) -> web.Response:
        response = mlflow_error(405, f"{request.path[:200]} takes POST, not {request.method[:20]}")
        response.headers[hdrs.ALLOW] = "POST"
        return response

    async def ping(self, request: Request) -> web.Response:
        """200 when the server is ready, else 503; the body is MLflow's empty line."""
        status = 200 if self._registry.readiness().ready else 503
        return web.Response(body=b"\n", status=status, content_type=JSON)

    async def version(self, request: Request) -> web.Response:
        """The version of the shared environment's MLflow; each model has its own environment's."""
        return web.Response(body=MLFLOW_VERSION.encode(), content_type=JSON)

    def _only(self) -> str:
        names = self._registry.names()
        if len(names) != 1:
            some = f"one of {', '.join(names[:5])}{', …' if len(names) > 5 else ''}" if names else "there are none"
            raise NotFound(f"this server has {len(names)} models: post to /models/<name>/invocations ({some})")
        return names[0]


def mlflow_error(status: int, message: str) -> web.Response:
    """`{"error_code", "message"}`."""
    text = message.encode("utf-8", "replace").decode()
    return json_response({"error_code": error_code(status), "message": text}, status)
