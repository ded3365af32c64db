"""The bodies of errors over HTTP, `{"error": …}` on every route, and what an HTTP request says of who asks."""

from __future__ import annotations

import math
from http import HTTPStatus

import orjson
from aiohttp import hdrs, web
from multidict import istr

from ...protocol.errors import ServingError
from ..dataplane.statuses import statuses
from ..telemetry.requests import Caller, safe_id

JSON = "application/json"  # exactly: a charset makes some clients drop the body
X_REQUEST_ID = istr("X-Request-Id")
TRACE_PARENT = istr("traceparent")
#: Where a request keeps the id that it was given because it came without one.
GIVEN_ID = web.RequestKey("GIVEN_ID", str)


def json_response(data: object, status: int = 200) -> web.Response:
    """A JSON answer, content type without a charset; NaN and infinities become null."""
    return web.Response(body=orjson.dumps(data), status=status, content_type=JSON)


def v2_error(status: int, message: str) -> web.Response:
    """`{"error": message}`; what is no Unicode text in the message is replaced."""
    return json_response({"error": message.encode("utf-8", "replace").decode()}, status)


def error_response(error: ServingError) -> web.Response:
    """The V2 answer to an error of ours, with `Retry-After` where a retry can help."""
    response = v2_error(statuses(error).http, error.message)
    if response.status == HTTPStatus.UNAUTHORIZED:
        response.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    say_when(response, error)
    return response


def say_when(response: web.Response, error: ServingError) -> None:
    """`Retry-After`, in whole seconds, where a retry can help."""
    if error.retry_after is not None:
        response.headers[hdrs.RETRY_AFTER] = str(max(1, math.ceil(error.retry_after)))


def request_id(request: web.BaseRequest) -> str | None:
    """The client's `X-Request-Id`; None where there is none, or one that is not safe to repeat."""
    return safe_id(request.headers.get(X_REQUEST_ID))


class HttpCaller(Caller):
    """Who sent an HTTP request; its id, once given, stays with the request."""

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request

    @property
    def known_id(self) -> str | None:
        return request_id(self._request)

    @property
    def given_id(self) -> str | None:
        return self._request.get(GIVEN_ID)

    @given_id.setter
    def given_id(self, given: str | None) -> None:
        self._request[GIVEN_ID] = given or ""

    @property
    def trace_parent(self) -> str:
        return self._request.headers.get(TRACE_PARENT, "")

    def headers(self) -> dict[str, str]:
        """A header that came several times is joined with commas; what is no ASCII is made text that can be sent on."""
        found: dict[str, str] = {}
        for name, value in self._request.headers.items():
            name = name.lower()
            if not value.isascii():
                value = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            found[name] = f"{found[name]}, {value}" if name in found else value
        return found
