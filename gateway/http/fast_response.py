"""The usual answer, written at once: a head that is nearly ready made, and the body.

aiohttp's own Response makes a table of headers for each answer and serializes it: an eighth of what a small request
costs here. `infer.answer` uses this one for what clients nearly always get, and aiohttp's for everything else.
"""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import TYPE_CHECKING

from aiohttp import HttpVersion11, web
from aiohttp.http import SERVER_SOFTWARE

from .errors import X_REQUEST_ID

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter

    from ...protocol.codec import Body


class _FirstLines:
    """Of every head; they change once per second."""

    def __init__(self) -> None:
        self._second = 0
        self._lines = b""

    def now(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            date = formatdate(second, usegmt=True)
            self._lines = f"HTTP/1.1 200 OK\r\nServer: {SERVER_SOFTWARE}\r\nDate: {date}\r\n".encode("ascii")
            self._second = second
        return self._lines


_first_lines = _FirstLines()


class FastResponse(web.StreamResponse):
    """Status 200 and a whole body, for a request that it fits. Its `headers` are empty: they are written already."""

    def __init__(self, content_type: str, json_size: int | None, body: Body) -> None:
        """`content_type` is printable ASCII; `json_size`: what Inference-Header-Content-Length says, None: nothing."""
        super().__init__()
        size = "" if json_size is None else f"Inference-Header-Content-Length: {json_size}\r\n"
        last_lines = f"Content-Type: {content_type}\r\n{size}Content-Length: {len(body)}\r\n\r\n"
        self._whole = b"".join((_first_lines.now(), last_lines.encode("ascii"), body))

    @staticmethod
    def fits(request: web.BaseRequest) -> bool:
        """Nothing of this request is repeated in the answer's head, and its connection is kept without saying so."""
        return request.version == HttpVersion11 and request.keep_alive and X_REQUEST_ID not in request.headers

    @property
    def keep_alive(self) -> bool:
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        self._payload_writer = request.writer
        return request.writer

    async def write_eof(self, data: bytes = b"") -> None:
        assert self._payload_writer is not None
        await self._payload_writer.write_eof(self._whole)
