"""For operators and for who watches: `GET /status`, `GET /metrics`, and what changes the server.

`/metrics` is on the main port. Everything else is on it only when `server.admin: same` says so, else on a port of its
own (`server.admin`), and everywhere behind the guard that `Control` asks.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import time
from typing import Any

import orjson
from aiohttp import hdrs, web
from aiohttp.web_request import Request
from multidict import istr

from ... import __version__
from ...protocol.errors import InvalidRequest, NotSupported, Unauthenticated
from ..dataplane.control import Control
from ..dataplane.descriptions import Descriptions
from ..metrics.scrape import Metrics
from ..security.guard import Approach, bearer_of
from ..system.processes import read_rss
from .errors import json_response

#: Seconds that a webhook's timestamp may be off.
WEBHOOK_AGE = 300
#: The variable with the secret that the webhook was registered with.
WEBHOOK_SECRET = "MLFLOW_WEBHOOK_SECRET"
SEC_FETCH_SITE = istr("Sec-Fetch-Site")


def approach(request: web.BaseRequest) -> Approach:
    """Who sent this request, as the guard wants to know it."""

    def said(name: str) -> str | None:
        found = request.headers.getall(name, None)
        return None if found is None else ", ".join(found)

    place = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return Approach(
        host=said(hdrs.HOST),
        origin=said(hdrs.ORIGIN),
        fetch_site=said(SEC_FETCH_SITE),
        bearer=bearer_of(said(hdrs.AUTHORIZATION)),
        peer="unix" if isinstance(place, str) else "tcp",
    )


class StatusRoutes:
    """`GET /status`."""

    def __init__(self, about: Descriptions, control: Control) -> None:
        self._about = about
        self._control = control
        self._started = time.monotonic()

    def table(self) -> list[web.RouteDef]:
        return [web.get("/status", self.status)]

    async def status(self, request: Request) -> web.Response:
        """`{"server": {…}, "models": […]}`; seconds and bytes."""
        self._control.admit(approach(request))
        readiness = self._about.registry.readiness()
        rss = await asyncio.to_thread(read_rss, os.getpid())
        server = {
            "version": __version__,
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - self._started, 3),
            "ready": readiness.ready,
            "reasons": readiness.reasons,
            "memory": {"rss": rss},
        }
        return json_response({"server": server, "models": await self._about.models()})


class MetricsRoutes:
    """`GET /metrics`."""

    def __init__(self, metrics: Metrics, about: Descriptions) -> None:
        self._metrics = metrics
        self._about = about

    def table(self) -> list[web.RouteDef]:
        return [web.get("/metrics", self.scrape)]

    async def scrape(self, request: Request) -> web.Response:
        body, content_type = await self._metrics.scrape(self._about.registry.all(), request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})


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
        operator, match = self._control.admit(approach(request)), request.match_info
        await operator.load(match["model"], match.get("version"), _parameters(await request.read()))
        return json_response({})

    async def unload(self, request: Request) -> web.Response:
        operator, match = self._control.admit(approach(request)), request.match_info
        _parameters(await request.read())
        await operator.unload(match["model"], match.get("version"))
        return json_response({})

    async def reload(self, request: Request) -> web.Response:
        operator = self._control.admit(approach(request))
        return json_response({"changes": await operator.reload()})

    async def webhook(self, request: Request) -> web.Response:
        """MLflow tells that a version or an alias has changed; signed with the secret it was registered with."""
        poke = self._control.admit_signed(approach(request))
        secret = os.environ.get(WEBHOOK_SECRET, "")
        if not secret:
            raise NotSupported(f"set {WEBHOOK_SECRET} to the secret of the webhook to receive it")
        if not signed(secret, request.headers, await request.read(), time.time()):
            raise Unauthenticated("the webhook's signature is missing, wrong or too old")
        poke()
        return json_response({})


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
