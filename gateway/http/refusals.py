"""What is refused before it is a request of anybody's: counted as every error is, and said in the log now and then."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import _ErrInfo

from ..telemetry.seldom import Seldom

log = logging.getLogger("modelhub.http")


class Refusals:
    """Of one server; `count` is told the status of each."""

    def __init__(self, count: Callable[[int], None]) -> None:
        self._count = count
        self._parser, self._route = Seldom(log, logging.INFO), Seldom(log, logging.INFO)
        self._crowd = Seldom(log, logging.WARNING)

    def unparsed(self, status: int, why: str, who: str | None) -> None:
        """What is no request at all."""
        self._count(status)
        self._parser.say("a request of %s was refused (%d): %s", who or "somebody", status, why)

    def unrouted(self, error: web.HTTPException, method: str, path: str) -> None:
        """What there is no route for, which `guard` counts."""
        self._route.say("%s %.200s was refused (%d)", method, path, error.status)

    def crowded(self, limit: int) -> None:
        """A connection that is one too many, or what it asked."""
        self._count(503)
        self._crowd.say("connections are refused (503): %d are open (server.max_connections)", limit)


def too_large(message: object, limit: int) -> bool:
    """Whether a request's first line and headers have more than so many bytes together."""
    if not isinstance(message, RawRequestMessage):
        return False
    fields = sum(len(name) + len(value) + 4 for name, value in message.raw_headers)
    return len(message.method) + len(message.path) + len("  HTTP/1.1\r\n\r\n") + fields > limit


def of_head(limit: int) -> tuple[_ErrInfo, Any]:
    """What stands in the place of a request whose head is too large, as aiohttp's own protocol has it."""
    error = LineTooLong(b"", limit)
    return _ErrInfo(status=400, exc=error, message=error.message), EMPTY_PAYLOAD
