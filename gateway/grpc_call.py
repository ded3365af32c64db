"""A gRPC call as the gateway sees it: what its metadata say, how it ends with an error, what is done in a thread.

Used by all methods of the service (`grpc_service.py`, `grpc_infer.py`).
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from ..config.quantities import parse_duration
from ..protocol.errors import InvalidRequest, ServingError
from ..protocol.messages import InferRequest
from ..protocol.statuses import CLIENT_GONE, statuses
from .errors import safe_id, status_of
from .grpc_generated import open_inference_pb2 as pb
from .request_log import Caller
from .waiting_line import bounded, priority_of

if TYPE_CHECKING:
    from .metrics import Metrics
    from .model import ModelVersion

log = logging.getLogger("modelhub.grpc")

#: Messages of more bytes than this are parsed, converted and made in a thread.
LARGE = 256 << 10
#: A status's message travels in the trailers, percent-encoded, and clients refuse trailers above 8 KiB.
MAX_DETAILS = 5000

REQUEST_ID, TRACE_PARENT = "x-request-id", "traceparent"
TIMEOUT, PRIORITY = "x-request-timeout", "x-request-priority"
_OURS = frozenset({REQUEST_ID, TRACE_PARENT, TIMEOUT, PRIORITY})

T = TypeVar("T")
M = TypeVar("M", bound=Message)
Context = grpc.aio.ServicerContext[bytes, bytes]


class Call(Caller):
    """One call, which may bring many requests (a stream)."""

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

    def message(self, version: ModelVersion, kind: str, received: float, request: pb.ModelInferRequest) -> InferRequest:
        """What the worker is told of a request besides its body; `received` in seconds of CLOCK_MONOTONIC.

        The deadline is the call's own or the entry's, the earlier one. Raises InvalidRequest.
        """
        timeout = version.timeout
        remaining = self._context.time_remaining()
        if remaining is not None and remaining < timeout:
            timeout = remaining
        # By position, in the order of the fields: twice as fast as by name.
        message = InferRequest(0, kind, received + timeout, received, "", "", None, {}, {}, "", "", self.trace_parent)
        if request.parameters:
            message.priority = _priority(request)
        if self._ours:
            if TIMEOUT in self._ours:
                message.deadline = min(message.deadline, received + _duration(self._ours[TIMEOUT]))
            if PRIORITY in self._ours:
                message.priority = priority_of(self._ours[PRIORITY])
        if version.wants_headers:
            message.headers = self.headers()
        return message

    def headers(self) -> dict[str, str]:
        return {name: value for name, value in self._metadata if isinstance(value, str)}


def _priority(request: pb.ModelInferRequest) -> int:
    """The level that Triton's parameter `priority` asks for; what is no number is the worker's to judge."""
    if "priority" not in request.parameters:
        return InferRequest.priority
    parameter = request.parameters["priority"]
    return bounded(parameter.int64_param or parameter.uint64_param)


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise InvalidRequest(f"{TIMEOUT}: {str(error)[:200]}") from None


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


def code_of(error: BaseException) -> str:
    """The name of the gRPC code for what was raised while a request was answered."""
    if isinstance(error, ServingError):
        return statuses(error).grpc
    return "CANCELLED" if status_of(error) == CLIENT_GONE else "INTERNAL"


async def abort(context: Context, error: Exception, metrics: Metrics, call: Call | None = None) -> NoReturn:
    """End the call with the error's code, how long to wait before a retry where one can help, and the request's id."""
    if not isinstance(error, ServingError):
        log.error("a gRPC call failed in the gateway itself", exc_info=error)
        error = ServingError("internal error")
    code = statuses(error).grpc
    metrics.grpc_error(code)
    trailers = []
    if error.retry_after is not None:
        trailers.append(("retry-after", str(max(1, math.ceil(error.retry_after)))))
    call = call or Call(context)
    known = call.known_id or call.given_id
    if known is not None:
        trailers.append((REQUEST_ID, known))
    await context.abort(grpc.StatusCode[code], _details(error.message), tuple(trailers))


def _details(message: str) -> str:
    """Text that fits into a trailer, percent-encoded."""
    raw = message.encode("utf-8", "replace")
    plain = sum(0x20 <= byte < 0x7F and byte != 0x25 for byte in raw)
    length = plain + 3 * (len(raw) - plain)
    if length <= MAX_DETAILS:
        return raw.decode()
    return raw[: MAX_DETAILS // 3].decode("utf-8", "ignore") + "…"
