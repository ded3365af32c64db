"""The model repository extension of the V2 protocol: which model versions there are, and in which state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web
from aiohttp.web_request import Request

from ..protocol.errors import InvalidRequest
from .errors import json_response
from .lifecycle import ModelState

if TYPE_CHECKING:
    from .model import ModelVersion
    from .registry import Registry


class RepositoryRoutes:
    """`POST /v2/repository/index`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def table(self) -> list[web.RouteDef]:
        return [web.post("/v2/repository/index", self.index)]

    async def index(self, request: Request) -> web.Response:
        only_ready = _only_ready(await request.read())
        rows = [index_row(version) for version in self._registry.all()]
        return json_response([row for row in rows if row["state"] == "READY" or not only_ready])


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


def index_row(version: ModelVersion) -> dict[str, Any]:
    """One row of the index; also gRPC's."""
    state, reason = version.state, version.reason
    if state is ModelState.READY:
        known, reason = "READY", ""
    elif state.loading:
        known, reason = "LOADING", f"{state.value} for {version.phase_seconds:.1f} s"
    elif state is ModelState.DRAINING:
        known = "UNLOADING"
    else:
        known, reason = "UNAVAILABLE", reason or "not loaded"
    return {
        "name": version.name,
        **({"version": version.version} if version.version else {}),
        "state": known,
        "reason": reason,
    }
