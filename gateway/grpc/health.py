"""grpc.health.v1 for probes and load balancers.

service ""  and  inference.GRPCInferenceService    is the gateway ready?
liveness                                           it answers
the name of a model                                is that model ready?
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ...protocol.errors import NotFound
from ..models.registry import Registry
from .service import SERVICE

LIVENESS = "liveness"
#: Seconds between two looks for those who watch.
WATCH_INTERVAL = 0.2

_SERVER = frozenset({"", SERVICE.full_name})

Status = health_pb2.HealthCheckResponse.ServingStatus


class Health(health_pb2_grpc.HealthServicer):
    """Asks the registry each time: nothing is stored."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        #: Whether the server was ready, and until when that is good enough for those who watch: the more models there
        #: are the more it costs, and anybody may watch.
        self._watched = (0.0, False)

    async def Check(self, request: Any, context: Any) -> Any:
        status = self._status(request.service)
        if status == Status.Value("SERVICE_UNKNOWN"):
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service or model {request.service[:200]!r}")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """The status now, and each time that it has changed, until the client leaves."""
        before = None
        while True:
            status = self._watched_status(request.service)
            if status != before:
                before = status
                yield health_pb2.HealthCheckResponse(status=status)
            await asyncio.sleep(WATCH_INTERVAL)

    def _watched_status(self, service: str) -> Any:
        if service not in _SERVER:
            return self._status(service)
        until, ready = self._watched
        if until < time.monotonic():
            ready = self._registry.readiness().ready
            self._watched = (time.monotonic() + WATCH_INTERVAL / 2, ready)
        return Status.Value("SERVING" if ready else "NOT_SERVING")

    def _status(self, service: str) -> Any:
        if service == LIVENESS:
            ready = True
        elif service in _SERVER:
            ready = self._registry.readiness().ready
        else:
            try:
                ready = self._registry.find(service).ready
            except NotFound:
                return Status.Value("SERVICE_UNKNOWN")
        return Status.Value("SERVING" if ready else "NOT_SERVING")
