"""The bodies of requests: how large one may be, and how many bytes of them the gateway holds at once.

A small body that came with its head is not counted. Any other is, from before it is read until its request is answered:
it is kept so long, because another worker may have to be asked. There is one `Bodies` for all ports.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from aiohttp import web

from ..config.quantities import format_size
from ..config.server import ServerSettings
from ..protocol.codec import Body
from ..protocol.errors import DeadlineExceeded, QueueFull, TooLarge
from .memory import PodMemory

#: Bytes of a body that is not counted, if it is there already.
SMALL = 64 << 10
#: One part in so many of the memory, where `server.max_buffered` is not set.
PART = 4


class Bodies:
    """`largest`: bytes of one at most (server.max_body); `most`: of all together (server.max_buffered)."""

    def __init__(self, largest: int, most: int) -> None:
        self.largest = largest
        self.most = most
        #: Bytes that are held, or have been announced.
        self.held = 0

    def small(self, request: web.BaseRequest) -> Body | None:
        """The body, if it is small and has arrived; for others, None. Raises TooLarge."""
        payload = request.content
        if not payload.is_eof() or payload.total_bytes > SMALL:
            return None
        body = payload.read_nowait()
        if len(body) > self.largest:
            raise self._too_large()
        return body

    def check(self, request: web.BaseRequest) -> None:
        """Before a body has come: raises TooLarge and QueueFull, as far as its announced length tells."""
        length = request.content_length or 0
        if length > self.largest:
            raise self._too_large()
        if self.held + length > self.most:
            raise self._full()

    @asynccontextmanager
    async def read(self, request: web.BaseRequest, deadline: float) -> AsyncIterator[Body]:
        """The whole body, arrived or not; it is held until the end of the block.

        Raises TooLarge and QueueFull, before anything is read where Content-Length tells, and DeadlineExceeded.
        """
        self.check(request)
        announced, body = request.content_length or 0, bytearray()
        self.held += announced
        try:
            try:
                await asyncio.wait_for(self._collect(request, body, announced), deadline - time.monotonic())
            except asyncio.TimeoutError:
                raise DeadlineExceeded("the deadline of this request passed before its body had arrived") from None
            yield body
        finally:
            self.held -= max(announced, len(body))

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """So many bytes are held until the end of the block. Raises QueueFull."""
        if self.held + size > self.most:
            raise self._full()
        self.held += size
        try:
            yield
        finally:
            self.held -= size

    async def _collect(self, request: web.BaseRequest, body: bytearray, announced: int) -> None:
        """Reads into `body`, and counts what had not been announced."""
        while chunk := await request.content.readany():
            size = len(body) + len(chunk)
            if size > self.largest:
                raise self._too_large()
            more = size - max(announced, len(body))
            if more > 0:
                if self.held + more > self.most:
                    raise self._full()
                self.held += more
            body += chunk

    def _too_large(self) -> TooLarge:
        most = format_size(self.largest)
        return TooLarge(f"the request's body is larger than {most}, the limit of this server (max_body)")

    def _full(self) -> QueueFull:
        return QueueFull(
            f"this server holds as many bytes of requests as it may, {format_size(self.most)} (max_buffered): "
            "try again later",
            retry_after=1.0,
        )


def max_buffered(settings: ServerSettings) -> int:
    """The setting, or a part of what this container may use, or of what the machine has. Reads files."""
    if settings.max_buffered is not None:
        return settings.max_buffered
    _, limit = PodMemory().used_and_limit()
    memory = limit or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(memory // PART, settings.max_body)
