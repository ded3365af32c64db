"""`/openapi.json` of the server and of each model, and Swagger UI at `/docs`, with nothing from outside addresses."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

from aiohttp import web
from aiohttp.web_request import Request

from ...protocol.errors import NotFound
from ..dataplane.descriptions import Descriptions
from ..dataplane.openapi import model_document, server_document
from .errors import json_response

#: The files of Swagger UI that the page needs, of the package that carries them.
_FILES = ("swagger-ui-bundle.js", "swagger-ui-standalone-preset.js", "swagger-ui.css", "favicon-32x32.png")
#: Located, not imported: it would import a web framework.
_PACKAGE = find_spec("flask_swagger_ui")
_FOLDER = Path(_PACKAGE.origin).parent / "dist" if _PACKAGE is not None and _PACKAGE.origin else None

_PAGE = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>modelhub-serving</title>
<link rel="stylesheet" href="docs/swagger-ui.css"><link rel="icon" href="docs/favicon-32x32.png"></head>
<body><div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script><script src="docs/swagger-ui-standalone-preset.js"></script>
<script src="docs/start.js"></script></body></html>
"""
_START = """SwaggerUIBundle({
  urls: %s, dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null, layout: "StandaloneLayout",
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
});
"""
#: The page loads and asks nothing but this server.
_POLICY = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'"


class OpenApiRoutes:
    """Handlers of the documents and their page; `table` names the paths."""

    def __init__(self, about: Descriptions) -> None:
        self._about = about
        self._registry = about.registry

    def table(self) -> list[web.RouteDef]:
        return [
            web.get("/openapi.json", self.server),
            web.get("/v2/models/{model}/openapi.json", self.model),
            web.get("/v2/models/{model}/versions/{version}/openapi.json", self.model),
            web.get("/docs", self.page),
            web.get("/docs/start.js", self.start),
            web.get("/docs/{file}", self.file),
        ]

    async def server(self, request: Request) -> web.Response:
        return json_response(server_document(self._registry.names()))

    async def model(self, request: Request) -> web.Response:
        match = request.match_info
        version = self._registry.find(match["model"], match.get("version"))
        return json_response(
            model_document(version.name, version.version, await self._about.metadata(version), version.example)
        )

    async def page(self, request: Request) -> web.Response:
        self._file("swagger-ui.css")
        headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": _POLICY}
        return web.Response(body=_PAGE, headers=headers)

    async def start(self, request: Request) -> web.Response:
        documents = [{"name": "the server", "url": "openapi.json"}]
        documents += [{"name": name, "url": f"v2/models/{name}/openapi.json"} for name in self._registry.names()]
        return web.Response(text=_START % json.dumps(documents), content_type="text/javascript")

    async def file(self, request: Request) -> web.FileResponse:
        return web.FileResponse(self._file(request.match_info["file"]), headers={"Cache-Control": "max-age=86400"})

    @staticmethod
    def _file(name: str) -> Path:
        if name not in _FILES:
            raise NotFound(f"there is no {name[:100]!r} below /docs")
        if _FOLDER is None:
            raise NotFound("the page needs the package flask-swagger-ui; /openapi.json is there without it")
        return _FOLDER / name
