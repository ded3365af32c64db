"""Reading the bodies of HTTP requests, as far as the budget of bytes has room (`dataplane/budget.py`)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from ...protocol.codec import Body
from ...protocol.errors import DeadlineExceeded, InvalidRequest
from ..dataplane.budget import SMALL, Budget, Share


class BrokenBody(InvalidRequest):
    """It ended early, or cannot be read: nothing that follows on this connection can be made sense of."""


def small_body(request: web.BaseRequest, budget: Budget) -> Body | None:
    """The body, if it is small and has arrived; for others, None. Raises TooLarge."""
    payload = request.content
    if not payload.is_eof() or payload.total_bytes > SMALL:
        return None
    body = payload.read_nowait()
    if len(body) > budget.largest:
        raise budget.too_large()
    return body


@asynccontextmanager
async def read_body(request: web.BaseRequest, budget: Budget, deadline: float) -> AsyncIterator[Body]:
    """The whole body, arrived or not; it is held until the end of the block.

    Raises TooLarge and QueueFull, before anything is read where Content-Length tells, DeadlineExceeded and BrokenBody.
    """
    length = request.content_length or 0
    budget.check(length)
    body = bytearray()
    with budget.holding(length) as share:
        whole = False
        try:
            await asyncio.wait_for(_collect(request, body, budget, share), deadline - time.monotonic())
            whole = True
        except asyncio.TimeoutError:
            raise DeadlineExceeded("the deadline of this request passed before its body had arrived") from None
        except web.RequestPayloadError:
            raise BrokenBody("the request's body ended early or is not encoded as its headers say") from None
        finally:
            if not whole:
                # What aiohttp's reader raises it also keeps, and with it this frame, in a circle that is found late.
                body.clear()
        yield body


async def _collect(request: web.BaseRequest, body: bytearray, budget: Budget, share: Share) -> None:
    """Reads into `body`, and counts what had not been announced."""
    while chunk := await request.content.readany():
        size = len(body) + len(chunk)
        if size > budget.largest:
            raise budget.too_large()
        share.grow(size)
        body += chunk
