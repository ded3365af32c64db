"""The bodies of requests: how large one may be, and how many bytes of them the gateway holds at once.

Small bodies are not counted: they are refused for no other's sake. Any other is, from before it is read until its
request is answered: it is kept so long, because another worker may have to be asked. All ports share one `Bodies`.
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

#: Bytes of a body that is not counted.
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
        _Share(self).check(length)

    @asynccontextmanager
    async def read(self, request: web.BaseRequest, deadline: float) -> AsyncIterator[Body]:
        """The whole body, arrived or not; it is held until the end of the block.

        Raises TooLarge and QueueFull, before anything is read where Content-Length tells, and DeadlineExceeded.
        """
        self.check(request)
        body = bytearray()
        with self.holding(request.content_length or 0) as share:
            try:
                await asyncio.wait_for(self._collect(request, body, share), deadline - time.monotonic())
            except asyncio.TimeoutError:
                raise DeadlineExceeded("the deadline of this request passed before its body had arrived") from None
            yield body

    @contextmanager
    def holding(self, size: int) -> Iterator[_Share]:
        """So many bytes are held until the end of the block. Raises QueueFull."""
        share = _Share(self)
        share.grow(size)
        try:
            yield share
        finally:
            self.held -= share.size

    async def _collect(self, request: web.BaseRequest, body: bytearray, share: _Share) -> None:
        """Reads into `body`, and counts what had not been announced."""
        while chunk := await request.content.readany():
            size = len(body) + len(chunk)
            if size > self.largest:
                raise self._too_large()
            share.grow(size)
            body += chunk

    def _too_large(self) -> TooLarge:
        most = format_size(self.largest)
        return TooLarge(f"the request's body is larger than {most}, the limit of this server (max_body)")


class _Share:
    """What one request has of all that is held: `size` bytes, 0 as long as it is small."""

    def __init__(self, bodies: Bodies) -> None:
        self.size = 0
        self._bodies = bodies

    def check(self, size: int) -> None:
        """Raises QueueFull where so many bytes would be too many."""
        if size > SMALL and self._bodies.held - self.size + size > self._bodies.most:
            most = format_size(self._bodies.most)
            raise QueueFull(
                f"this server holds as many bytes of requests as it may, {most} (max_buffered): try again later",
                retry_after=1.0,
            )

    def grow(self, size: int) -> None:
        """So many bytes altogether, if that is more than there were. Raises QueueFull."""
        if size > max(self.size, SMALL):
            self.check(size)
            self._bodies.held += size - self.size
            self.size = size


def max_buffered(settings: ServerSettings) -> int:
    """The setting, or a part of what this container may use, or of what the machine has. Reads files."""
    if settings.max_buffered is not None:
        return settings.max_buffered
    _, limit = PodMemory().used_and_limit()
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(min(limit or machine, machine) // PART, settings.max_body)
