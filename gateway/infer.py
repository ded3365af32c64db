"""One inference over HTTP: headers and query into an InferRequest, the body's bytes on unread, the reply back.

Every request to a model passes through `answer`; it is the hot path of the gateway.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from aiohttp import hdrs, web
from multidict import istr

from ..config.quantities import parse_duration
from ..protocol.errors import InvalidRequest, ServingError
from ..protocol.kinds import INFER
from ..protocol.messages import InferReply, InferRequest
from . import request_log
from .errors import JSON, X_REQUEST_ID, request_id, status_of
from .quick_answer import QuickAnswer
from .registry import now_serving
from .waiting_line import priority_of

if TYPE_CHECKING:
    from .bodies import Bodies
    from .model import ModelVersion

JSON_SIZE = istr("Inference-Header-Content-Length")
TRACE_PARENT = istr("traceparent")
X_REQUEST_TIMEOUT = istr("X-Request-Timeout")
X_REQUEST_PRIORITY = istr("X-Request-Priority")

#: A reply's body of more bytes than this is written from where ZeroMQ put it; below, a copy is cheaper.
BORROW_ABOVE = 65536
#: Digits of a length that is worth looking at: more is larger than any body.
MAX_DIGITS = 15


async def answer(
    version: ModelVersion, request: web.BaseRequest, bodies: Bodies, kind: str = INFER
) -> web.StreamResponse:
    """Have the model answer this request. Counts how it ends; raises leaves of ServingError."""
    started = time.monotonic_ns()
    stats = version.stats
    try:
        message = to_message(request, version, kind, started / 1e9)
        body = bodies.small(request)
        if body is not None:
            reply, output = await version.infer(message, body)
        else:
            version.check_queue()
            async with bodies.read(request, message.deadline) as body:
                version = serving_now(version, request, message)
                stats = version.stats
                reply, output = await version.infer(message, body)
        del body  # the answer may take a while to be written
        headers = _headers_of(reply)
    except BaseException as error:
        status, elapsed = status_of(error), time.monotonic_ns() - started
        stats.fail(kind, status, elapsed)
        request_log.failed(request, version, kind, status, elapsed, error)
        raise
    status = reply.status or 200
    if not 200 <= status <= 599:
        status = 500
    elapsed = time.monotonic_ns() - started
    if status < 400:
        stats.succeed(kind, status, elapsed, reply)
        request_log.succeeded(request, version, kind, status, elapsed, reply)
    else:
        stats.fail(kind, status, elapsed)
        request_log.failed(request, version, kind, status, elapsed, reply)
    if status == 200 and not reply.content_encoding and len(output) <= BORROW_ABOVE and QuickAnswer.fits(request):
        return QuickAnswer(reply.content_type, reply.json_size, output)
    if not isinstance(output, memoryview):
        return web.Response(body=output, status=status, headers=headers)
    if output.nbytes <= BORROW_ABOVE:
        return web.Response(body=bytes(output), status=status, headers=headers)
    return await _write(request, status, headers, output)


def check_early(version: ModelVersion, request: web.BaseRequest, bodies: Bodies) -> None:
    """Before a client sends its body: raises TooLarge and QueueFull, and counts that, as `answer` would."""
    try:
        version.check_queue()
        bodies.check(request)
    except ServingError as error:
        status = status_of(error)
        version.stats.fail(INFER, status, 0)
        request_log.failed(request, version, INFER, status, 0, error)
        raise


def serving_now(version: ModelVersion, request: web.BaseRequest, message: InferRequest) -> ModelVersion:
    """The version, or what has taken over from it while the body arrived."""
    version = now_serving(version, named="version" in getattr(request, "match_info", ()))
    if version.wants_headers:
        message.headers = _lower_headers(request)
    return version


def to_message(request: web.BaseRequest, version: ModelVersion, kind: str, received: float) -> InferRequest:
    """What the worker is told of a request besides its body. Raises InvalidRequest.

    `received` is in seconds of CLOCK_MONOTONIC; the deadline is the entry's timeout later, or the client's own
    (`X-Request-Timeout: 250ms`) when that is shorter; `X-Request-Priority: 1` goes before others in the queue.
    All text in the message can be encoded as UTF-8.
    """
    header = request.headers.get
    content_type = header(hdrs.CONTENT_TYPE, "")
    encoding = header(hdrs.CONTENT_ENCODING, "")
    accept = header(hdrs.ACCEPT, "")
    accept_encoding = header(hdrs.ACCEPT_ENCODING, "")
    trace = header(TRACE_PARENT, "")
    if not (
        content_type.isascii()
        and encoding.isascii()
        and accept.isascii()
        and accept_encoding.isascii()
        and trace.isascii()
    ):
        raise InvalidRequest("Content-Type, Content-Encoding, Accept, Accept-Encoding and traceparent must be ASCII")
    # The dispatcher numbers it. By position, in the order of the fields: twice as fast as by name.
    message = InferRequest(0, kind, 0.0, received, content_type, encoding, None, {}, {}, accept, accept_encoding, trace)
    size = header(JSON_SIZE)
    if size is not None:
        message.json_size = _json_size(size)
    timeout = version.timeout
    own = header(X_REQUEST_TIMEOUT)
    if own is not None:
        timeout = min(timeout, _duration(own))
    message.deadline = received + timeout
    priority = header(X_REQUEST_PRIORITY)
    if priority is not None:
        message.priority = priority_of(priority)
    url = request.rel_url
    if url.raw_query_string:
        message.query = dict(url.query)
    if version.wants_headers:
        message.headers = _lower_headers(request)
    return message


def _json_size(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
        raise InvalidRequest(
            f"{JSON_SIZE}: {text[:100]!r} is not the number of bytes of the JSON part; write digits only"
        )
    return int(text)


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise InvalidRequest(f"{X_REQUEST_TIMEOUT}: {str(error)[:200]}") from None


def _lower_headers(request: web.BaseRequest) -> dict[str, str]:
    """Lower-case names to values; a header that came several times is joined with commas."""
    found: dict[str, str] = {}
    for name, value in request.headers.items():
        name = name.lower()
        if not value.isascii():
            value = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


# ---- answers -------------------------------------------------------------------------------------


def _headers_of(reply: InferReply) -> dict[str, str]:
    """Raises ServingError: a worker's word must not write headers of its own, and aiohttp would answer with silence."""
    content_type = reply.content_type
    if content_type != JSON and not (content_type.isascii() and content_type.isprintable()):
        raise ServingError(f"the model answered with a content type that cannot be sent: {content_type[:100]!r}")
    headers: dict[str, str] = {hdrs.CONTENT_TYPE: content_type}
    if reply.json_size is not None:
        headers[JSON_SIZE] = str(reply.json_size)
    if reply.content_encoding:
        headers[hdrs.CONTENT_ENCODING] = reply.content_encoding
        headers[hdrs.VARY] = hdrs.ACCEPT_ENCODING
    return headers


async def _write(
    request: web.BaseRequest, status: int, headers: dict[str, str], body: memoryview
) -> web.StreamResponse:
    """Send a large body from where it is; aiohttp's own Response would copy it first."""
    known = request_id(request)
    if known is not None:
        headers[X_REQUEST_ID] = known
    response = web.StreamResponse(status=status, headers=headers)
    response.content_length = body.nbytes
    await response.prepare(request)
    await response.write(body)
    return response
