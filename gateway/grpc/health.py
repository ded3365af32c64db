"""grpc.health.v1 for probes and load balancers.

service ""  and  inference.GRPCInferenceService    is the gateway ready?
liveness                                           it answers
the name of a model                                is that model ready?
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from ...protocol.codec import Body
from ...protocol.errors import NotFound
from ..models.registry import Registry
from .call import Call, Method, parse, whole
from .descriptors import HEALTH, message_class
from .message import Message
from .service import SERVICE

LIVENESS = "liveness"
#: Seconds between two looks for those who watch.
WATCH_INTERVAL = 0.2

_SERVER = frozenset({"", SERVICE.full_name})

_Request, _Response = (message_class(HEALTH, f"HealthCheck{kind}") for kind in ("Request", "Response"))
_STATUS = HEALTH.message_types_by_name["HealthCheckResponse"].enum_types_by_name["ServingStatus"].values_by_name
UNKNOWN = "SERVICE_UNKNOWN"


class Health:
    """Asks the registry each time: nothing is stored."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        #: Whether the server was ready, and until when that is good enough for those who watch: the more models there
        #: are the more it costs, and anybody may watch.
        self._watched = (0.0, False)

    def methods(self) -> dict[bytes, Method]:
        """Both methods by their paths."""
        return {
            b"/grpc.health.v1.Health/Check": Method(self.check),
            b"/grpc.health.v1.Health/Watch": Method(self.watch, unary=False),
        }

    async def check(self, call: Call, message: Message) -> list[Body] | None:
        service = _asked(message)
        status = self._status(service)
        if status == UNKNOWN:
            call.fail(NotFound(f"there is no service or model {service[:200]!r}"), counted=False)
            return None
        return _answer(status)

    async def watch(self, call: Call) -> None:
        """The status now, and each time that it has changed, until the client leaves."""
        message = await call.next_message()
        if message is None:
            return
        service, before = _asked(message), None
        message.release()
        while not call.closed:
            status = self._watched_status(service)
            if status != before:
                before = status
                await call.write(_answer(status))
            await asyncio.sleep(WATCH_INTERVAL)

    def _watched_status(self, service: str) -> str:
        if service not in _SERVER:
            return self._status(service)
        until, ready = self._watched
        if until < time.monotonic():
            ready = self._registry.readiness().ready
            self._watched = (time.monotonic() + WATCH_INTERVAL / 2, ready)
        return "SERVING" if ready else "NOT_SERVING"

    def _status(self, service: str) -> str:
        if service == LIVENESS:
            ready = True
        elif service in _SERVER:
            ready = self._registry.readiness().ready
        else:
            try:
                ready = self._registry.find(service).ready
            except NotFound:
                return UNKNOWN
        return "SERVING" if ready else "NOT_SERVING"


def _asked(message: Message) -> str:
    """Raises InvalidRequest, or why the message was refused."""
    if message.refused is not None:
        raise message.refused
    request: Any = parse(_Request, message.bytes())
    return str(request.service)


def _answer(status: str) -> list[Body]:
    return whole(_Response(status=_STATUS[status].number))
