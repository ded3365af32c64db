"""What is said about a request when it has ended: a line in the log, a trace.

Errors are logged always (so many a second of each model), every request at level debug.

Called where a request ends, over HTTP or gRPC. Neither payloads nor what may quote them is written: of an error that
the client or the model made only its kind, of one that the gateway made its message too.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from typing import TYPE_CHECKING, Any, Union
from weakref import WeakKeyDictionary

from aiohttp import web
from multidict import istr

from ..protocol.errors import ServingError
from ..protocol.messages import InferReply
from ..protocol.statuses import CLIENT_GONE
from . import tracing
from .errors import GIVEN_ID, request_id

if TYPE_CHECKING:
    from .model import ModelVersion

log = logging.getLogger("modelhub.requests")

#: Who asked: an HTTP request, or what is known of a gRPC call.
Asker = Union[web.BaseRequest, "Caller"]

TRACE_PARENT = istr("traceparent")

#: Lines about errors of one model a second; what is over is counted and said with the next line.
LINES_PER_SECOND = 20
#: Errors whose message is ours alone: it quotes neither the client nor the model.
_OURS = frozenset({"not_ready", "queue_full", "deadline_exceeded", "worker_lost", "load_failed", "too_large"})


class _Quota:
    """So many lines a second; a failing model under load must neither drown the log nor hide others' errors."""

    def __init__(self) -> None:
        self._second = 0
        self._lines = 0
        self._left_out = 0

    def take(self) -> int | None:
        """None: leave this one out; else how many were left out before it."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._lines = second, 0
        if self._lines >= LINES_PER_SECOND:
            self._left_out += 1
            return None
        self._lines += 1
        left_out, self._left_out = self._left_out, 0
        return left_out


_quotas: WeakKeyDictionary[ModelVersion, _Quota] = WeakKeyDictionary()


class Caller:
    """What a line and a trace say of a gRPC call."""

    #: The client's `x-request-id`, and the one that the call was given because it came without.
    known_id: str | None = None
    given_id: str | None = None
    trace_parent = ""
    #: The name of the code with which the last request ended.
    status = "OK"


def id_of(request: Asker) -> str:
    """The client's `X-Request-Id`, else one that is given now and goes back with the answer."""
    if isinstance(request, Caller):
        if request.known_id is None and request.given_id is None:
            request.given_id = secrets.token_hex(8)
        return str(request.known_id or request.given_id)
    known = request_id(request) or request.get(GIVEN_ID)
    if known is None:
        known = request[GIVEN_ID] = secrets.token_hex(8)
    return str(known)


def succeeded(request: Asker, version: ModelVersion, route: str, status: int, elapsed: int, reply: InferReply) -> None:
    """A request was answered in `elapsed` nanoseconds: a line at level debug, and a trace where one is wanted."""
    if tracing.tracer is not None:
        known = request.known_id if isinstance(request, Caller) else request_id(request)
        tracing.record(version, route, _parent(request), known, _status(request, status), elapsed, reply)
    if not log.isEnabledFor(logging.DEBUG):
        return
    phases = {
        "queue": reply.queue_ns,
        "batch_wait": reply.wait_ns,
        "decode": reply.decode_ns,
        "predict": reply.predict_ns,
        "encode": reply.encode_ns,
    }
    fields = _fields(request, version, route, status, elapsed)
    fields |= {f"{name}_ms": _ms(nanoseconds) for name, nanoseconds in phases.items()}
    log.debug("%s answered", version.label, extra=fields)


def failed(
    request: Asker, version: ModelVersion, route: str, status: int, elapsed: int, error: BaseException | InferReply
) -> None:
    """A request ended with an error: a warning where it is ours or the model's, info where it is the client's.

    `error`: what was raised, or the worker's reply with a status of its own.
    """
    if tracing.tracer is not None:
        code = error.code if isinstance(error, (ServingError, InferReply)) else type(error).__name__
        ended = _status(request, status)
        tracing.record(version, route, _parent(request), id_of(request), ended, elapsed, error=code, ours=status >= 500)
    level = logging.WARNING if status >= 500 else logging.DEBUG if status == CLIENT_GONE else logging.INFO
    if not log.isEnabledFor(level):
        return
    left_out = _quotas.setdefault(version, _Quota()).take()
    if left_out is None:
        return
    fields = _fields(request, version, route, status, elapsed)
    if left_out:
        fields["left_out"] = left_out
    log.log(level, "%s answered with %d: %s", version.label, status, _why(error), extra=fields)


def _parent(request: Asker) -> str:
    return request.trace_parent if isinstance(request, Caller) else request.headers.get(TRACE_PARENT, "")


def _status(request: Asker, status: int) -> int | str:
    """What the client was told: a status of HTTP, or the name of a gRPC code."""
    return request.status if isinstance(request, Caller) else status


def _why(error: BaseException | InferReply) -> str:
    if isinstance(error, InferReply):
        return error.code or "the service's own statusCode"
    if isinstance(error, ServingError):
        # the first line: why a model failed is said whole when it fails
        return f"{error.code}: {error.message.partition(chr(10))[0]}" if error.code in _OURS else error.code
    if isinstance(error, (asyncio.CancelledError, ConnectionError)):
        return "the client went away"
    return type(error).__name__


def _fields(request: Asker, version: ModelVersion, route: str, status: int, elapsed: int) -> dict[str, Any]:
    return {
        "request_id": id_of(request),
        "model": version.name,
        "version": version.version,
        "route": route,
        "status": status,
        "ms": _ms(elapsed),
    }


def _ms(nanoseconds: int) -> float:
    return round(nanoseconds / 1e6, 3)
