"""What is said about a request when it has ended: a line in the log, a trace.

Errors are logged always (so many a second of each model), every request at level debug.

Called where a request ends (`dataplane/inference.py`), whatever front it came by. Neither payloads nor what may quote
them is written: of an error that the client or the model made only its kind, of one that the gateway made its message
too.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from ...protocol.errors import ServingError
from ...protocol.messages import InferReply
from ...protocol.statuses import CLIENT_GONE
from . import tracing

log = logging.getLogger("modelhub.requests")

#: Lines about errors of one model a second; what is over is counted and said with the next line.
LINES_PER_SECOND = 20
#: Errors whose message is ours alone: it quotes neither the client nor the model.
_OURS = frozenset({"not_ready", "queue_full", "deadline_exceeded", "worker_lost", "load_failed", "too_large"})
MAX_REQUEST_ID = 128


class Subject(tracing.Subject, Protocol):
    """The model version that was asked."""

    @property
    def label(self) -> str: ...


class Caller:
    """Who asked, as a line and a trace tell of it. Each front has its own kind, which reads only what is asked for."""

    #: What the request is called where the client did not say it; goes back with the answer.
    given_id: str | None = None

    @property
    def known_id(self) -> str | None:
        """The client's own id of the request; None where there is none, or one that is not safe to repeat."""
        return None

    @property
    def trace_parent(self) -> str:
        """The client's W3C `traceparent`, or ""."""
        return ""

    def headers(self) -> dict[str, str]:
        """What came with the request, for services that read it: lower-case names to values."""
        return {}

    def told(self, status: int, error: BaseException | None) -> int | str:
        """What the client was told: a status of HTTP, or the name of a gRPC code."""
        return status

    @property
    def id(self) -> str:
        """The client's id of the request, else one that is given now."""
        known = self.known_id or self.given_id
        if known is None:
            known = self.given_id = secrets.token_hex(8)
        return known


def safe_id(given: str | None) -> str | None:
    """An id that a client gave to its request; None where it is not safe to repeat in a header."""
    if given and len(given) <= MAX_REQUEST_ID and given.isascii() and given.isprintable():
        return given
    return None


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


_quotas: WeakKeyDictionary[Subject, _Quota] = WeakKeyDictionary()


def succeeded(caller: Caller, version: Subject, route: str, status: int, elapsed: int, reply: InferReply) -> None:
    """A request was answered in `elapsed` nanoseconds: a line at level debug, and a trace where one is wanted."""
    if tracing.tracer is not None:
        ended = tracing.Ended(route, caller.told(status, None), elapsed, reply)
        tracing.record(version, ended, caller.trace_parent, caller.known_id)
    if not log.isEnabledFor(logging.DEBUG):
        return
    phases = {
        "queue": reply.queue_ns,
        "batch_wait": reply.wait_ns,
        "decode": reply.decode_ns,
        "predict": reply.predict_ns,
        "encode": reply.encode_ns,
    }
    fields = _fields(caller, version, route, status, elapsed)
    fields |= {f"{name}_ms": _ms(nanoseconds) for name, nanoseconds in phases.items()}
    log.debug("%s answered", version.label, extra=fields)


def failed(
    caller: Caller,
    version: Subject,
    route: str,
    status: int,
    elapsed: int,
    error: BaseException | None,
    reply: InferReply | None = None,
) -> None:
    """A request ended with an error: a warning where it is ours or the model's, info where it is the client's.

    `error`: what was raised. `reply`: the worker's, where it has a status of its own; one of them is there.
    """
    if tracing.tracer is not None:
        said = error if reply is None else reply
        code = said.code if isinstance(said, (ServingError, InferReply)) else type(said).__name__
        ended = tracing.Ended(route, caller.told(status, error), elapsed, error=code, ours=status >= 500)
        tracing.record(version, ended, caller.trace_parent, caller.id)
    level = logging.WARNING if status >= 500 else logging.DEBUG if status == CLIENT_GONE else logging.INFO
    if not log.isEnabledFor(level):
        return
    left_out = _quotas.setdefault(version, _Quota()).take()
    if left_out is None:
        return
    fields = _fields(caller, version, route, status, elapsed)
    if left_out:
        fields["left_out"] = left_out
    log.log(level, "%s answered with %d: %s", version.label, status, _why(error, reply), extra=fields)


def _why(error: BaseException | None, reply: InferReply | None) -> str:
    if reply is not None:
        return reply.code or "the service's own statusCode"
    if isinstance(error, ServingError):
        # the first line: why a model failed is said whole when it fails
        return f"{error.code}: {error.message.partition(chr(10))[0]}" if error.code in _OURS else error.code
    if isinstance(error, (asyncio.CancelledError, ConnectionError)):
        return "the client went away"
    return type(error).__name__


def _fields(caller: Caller, version: Subject, route: str, status: int, elapsed: int) -> dict[str, Any]:
    return {
        "request_id": caller.id,
        "model": version.name,
        "version": version.version,
        "route": route,
        "status": status,
        "ms": _ms(elapsed),
    }


def _ms(nanoseconds: int) -> float:
    return round(nanoseconds / 1e6, 3)
