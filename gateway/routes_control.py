"""What changes the server: load and unload a model, reload the configuration, MLflow's webhook.

Operators' matters: on the main port only when that is loopback's or `server.admin: same` says so.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import time
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web
from aiohttp.web_request import Request

from ..protocol.errors import InvalidRequest, NotSupported
from .errors import json_response

if TYPE_CHECKING:
    from .catalog import Catalog
    from .follow import Follower

#: Seconds that a webhook's timestamp may be off.
WEBHOOK_AGE = 300
#: The variable with the secret that the webhook was registered with.
WEBHOOK_SECRET = "MLFLOW_WEBHOOK_SECRET"


class Control:
    """The catalog and the follower as operators reach them, over HTTP or gRPC."""

    def __init__(self, catalog: Catalog, follower: Follower) -> None:
        self._catalog = catalog
        self._follower = follower

    async def load(self, name: str, version: str | None, parameters: dict[str, Any]) -> None:
        """`parameters.config`: JSON text of keys that override the model's entry. Raises leaves of ServingError."""
        config = parameters.get("config")
        if config is not None:
            try:
                config = orjson.loads(config)
            except (orjson.JSONDecodeError, TypeError):
                config = None
            if not isinstance(config, dict):
                raise InvalidRequest("parameters.config must be the text of a JSON object with keys of a model's entry")
        await self._catalog.load(name, version, config)

    async def unload(self, name: str, version: str | None) -> None:
        await self._catalog.unload(name, version)

    async def reload(self) -> str:
        """What has changed, for people. Raises ConfigError, having changed nothing."""
        return str(await self._catalog.reload())

    def poke(self) -> None:
        """The registry has changed: look at the followed aliases now."""
        self._follower.poke()


class ControlRoutes:
    """Handlers of what changes the server; `table` names their paths."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def table(self) -> list[web.RouteDef]:
        model = "/v2/repository/models/{model}"
        return [
            *(web.post(f"{path}/load", self.load) for path in (model, model + "/versions/{version}")),
            *(web.post(f"{path}/unload", self.unload) for path in (model, model + "/versions/{version}")),
            web.post("/admin/reload", self.reload),
            web.post("/admin/mlflow-webhook", self.webhook),
        ]

    async def load(self, request: Request) -> web.Response:
        match = request.match_info
        await self._control.load(match["model"], match.get("version"), _parameters(await request.read()))
        return json_response({})

    async def unload(self, request: Request) -> web.Response:
        match = request.match_info
        _parameters(await request.read())
        await self._control.unload(match["model"], match.get("version"))
        return json_response({})

    async def reload(self, request: Request) -> web.Response:
        return json_response({"changes": await self._control.reload()})

    async def webhook(self, request: Request) -> web.Response:
        """MLflow tells that a version or an alias has changed; signed with the secret it was registered with."""
        secret = os.environ.get(WEBHOOK_SECRET, "")
        if not secret:
            raise NotSupported(f"set {WEBHOOK_SECRET} to the secret of the webhook to receive it")
        if not signed(secret, request.headers, await request.read(), time.time()):
            return json_response({"error": "the webhook's signature is missing, wrong or too old"}, 401)
        self._control.poke()
        return json_response({})


def closed_routes() -> list[web.RouteDef]:
    """The same paths on a port where they are not open: a clear answer instead of a 404."""

    async def closed(request: Request) -> web.Response:
        raise NotSupported("loading, unloading and reloading are not open on this port: see server.admin")

    return [
        web.post("/v2/repository/models/{model}/load", closed),
        web.post("/v2/repository/models/{model}/unload", closed),
        web.post("/admin/{action}", closed),
    ]


def signed(secret: str, headers: Any, body: bytes, now: float) -> bool:
    """Whether `X-MLflow-Signature: v1,<base64>` is HMAC-SHA256 of `<delivery id>.<timestamp>.<body>`."""
    kind, _, given = headers.get("X-MLflow-Signature", "").partition(",")
    delivery, stamp = headers.get("X-MLflow-Delivery-Id", ""), headers.get("X-MLflow-Timestamp", "")
    if kind != "v1" or not (stamp.isascii() and stamp.isdigit()) or abs(now - int(stamp)) > WEBHOOK_AGE:
        return False
    text = f"{delivery}.{stamp}.".encode() + body
    wanted = base64.b64encode(hmac.new(secret.encode(), text, hashlib.sha256).digest()).decode()
    return hmac.compare_digest(wanted.encode(), given.strip().encode())


def _parameters(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None
    parameters = asked.get("parameters", {}) if isinstance(asked, dict) else None
    if not isinstance(parameters, dict):
        raise InvalidRequest('the body must be empty or an object like {"parameters": {}}')
    return parameters
