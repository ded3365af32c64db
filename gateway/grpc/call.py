"""A gRPC call as the gateway sees it: what its metadata say, how it ends with an error, what is done in a thread.

Used by all methods of the service (`service.py`, `inference.py`).
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message

from ...protocol.errors import InvalidRequest, ServingError
from ...protocol.messages import InferRequest
from ..dataplane.budget import Share
from ..dataplane.inference import Exchange, client_timeout
from ..dataplane.statuses import statuses
from ..dispatch.queue import bounded, priority_of
from ..security.guard import Approach, bearer_of
from ..telemetry.counters import Counters
from ..telemetry.requests import Caller, safe_id
from .generated import open_inference_pb2 as pb

log = logging.getLogger("modelhub.grpc")

#: Messages of more bytes than this are parsed, converted and made in a thread.
LARGE = 256 << 10
#: Messages of no more bytes than this are converted where they are, whatever they are made of.
SIMPLE = 8 << 10
#: A status's message travels in the trailers, percent-encoded, and clients refuse trailers above 8 KiB.
MAX_DETAILS = 5000

REQUEST_ID, TRACE_PARENT = "x-request-id", "traceparent"
TIMEOUT, PRIORITY = "x-request-timeout", "x-request-priority"
_OURS = frozenset({REQUEST_ID, TRACE_PARENT, TIMEOUT, PRIORITY})

T = TypeVar("T")
M = TypeVar("M", bound=Message)
Context = grpc.aio.ServicerContext[bytes, bytes]


class Call(Caller):
    """One call, which may bring many requests (a stream), as the log and a trace tell of it."""

    known_id: str | None = None
    trace_parent = ""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._metadata = context.invocation_metadata() or ()
        self._ours: dict[str, str] | None = None
        for name, value in self._metadata:
            if name in _OURS and isinstance(value, str):
                self._ours = self._ours or {}
                self._ours[name] = value
        if self._ours:
            self.known_id = safe_id(self._ours.get(REQUEST_ID))
            self.trace_parent = self._ours.get(TRACE_PARENT, "")

    def hold(self, share: Share) -> None:
        """The bytes of an answer, until the call has ended."""
        self._context.add_done_callback(cast("Any", lambda *_: share.release()))

    def headers(self) -> dict[str, str]:
        return {name: value for name, value in self._metadata if isinstance(value, str)}

    def told(self, status: int, error: BaseException | None) -> str:
        return "OK" if error is None else statuses(error).grpc

    def describe(self, exchange: Exchange, request: pb.ModelInferRequest) -> InferRequest:
        """What the worker is told of one request besides its body. Raises InvalidRequest.

        The deadline is the call's own or the entry's, the earlier one.
        """
        timeout = self._context.time_remaining()
        priority = InferRequest.priority
        if request.parameters:
            priority = _priority(request)
        if self._ours:
            if TIMEOUT in self._ours:
                own = client_timeout(self._ours[TIMEOUT], TIMEOUT)
                timeout = own if timeout is None else min(timeout, own)
            if PRIORITY in self._ours:
                priority = priority_of(self._ours[PRIORITY])
        message = exchange.message(trace_parent=self.trace_parent, timeout=timeout)
        if priority != message.priority:
            message.priority = priority
        return message


def _priority(request: pb.ModelInferRequest) -> int:
    """The level that Triton's parameter `priority` asks for; what is no number is the worker's to judge."""
    if "priority" not in request.parameters:
        return InferRequest.priority
    parameter = request.parameters["priority"]
    return bounded(parameter.int64_param or parameter.uint64_param)


def approach(context: Context) -> Approach:
    """Who calls, as the guard wants to know it: browsers speak no gRPC, but what is in front may speak it for them."""
    said: dict[str, str] = {}
    for name, value in context.invocation_metadata() or ():
        if isinstance(value, str):
            said[name] = f"{said[name]}, {value}" if name in said else value
    return Approach(
        host=said.get("host"),
        origin=said.get("origin"),
        fetch_site=said.get("sec-fetch-site"),
        bearer=bearer_of(said.get("authorization")),
        peer="unix" if context.peer().startswith("unix:") else "tcp",
    )


# ---- messages ------------------------------------------------------------------------------------


async def aside(size: int, call: Callable[..., T], *arguments: object, **options: object) -> T:
    """The result of `call`; in a thread where `size` bytes are many."""
    if size <= LARGE:
        return call(*arguments, **options)
    return await asyncio.to_thread(call, *arguments, **options)


def parse(kind: type[M], message: bytes) -> M:
    """Raises InvalidRequest."""
    try:
        return kind.FromString(message)
    except DecodeError:
        raise InvalidRequest(f"the message is no {kind.__name__} of the package inference") from None


# ---- errors --------------------------------------------------------------------------------------


async def abort(context: Context, error: Exception, counters: Counters, call: Call | None = None) -> NoReturn:
    """End the call with the error's code, how long to wait before a retry where one can help, and the request's id."""
    if not isinstance(error, ServingError):
        log.error("a gRPC call failed in the gateway itself", exc_info=error)
        error = ServingError("internal error")
    code = statuses(error).grpc
    counters.grpc_error(code)
    trailers = []
    if error.retry_after is not None:
        trailers.append(("retry-after", str(max(1, math.ceil(error.retry_after)))))
    call = call or Call(context)
    known = call.known_id or call.given_id
    if known is not None:
        trailers.append((REQUEST_ID, known))
    await context.abort(grpc.StatusCode[code], _details(error.message), tuple(trailers))


def _details(message: str) -> str:
    """Text that fits into a trailer, percent-encoded; what is longer in any case is not looked at."""
    raw = message[: MAX_DETAILS + 1].encode("utf-8", "replace")
    plain = sum(0x20 <= byte < 0x7F and byte != 0x25 for byte in raw)
    length = plain + 3 * (len(raw) - plain)
    if length <= MAX_DETAILS:
        return raw.decode()
    return raw[: MAX_DETAILS // 3].decode("utf-8", "ignore") + "…"
