"""The answer to one request piece by piece, between its worker and a client that may read more slowly.

Made by `dataplane/inference.py` for the streams of every front.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from ...protocol.codec import Body
from ...protocol.errors import Cancelled
from ...protocol.messages import ChunkReply, InferReply, InferRequest

#: `ModelVersion.infer`: a request, its body, and who is told of each chunk.
Ask = Callable[[InferRequest, Body, Callable[[ChunkReply, Body], None]], Coroutine[Any, Any, tuple[InferReply, Body]]]

#: Bytes that a client may be behind; one that reads more slowly is let go.
MAX_BEHIND = 16 << 20


class Chunk(NamedTuple):
    """One piece: as an InferReply's, its JSON part has `json_size` bytes, None: all of them."""

    body: bytes
    json_size: int | None


class Chunks:
    """What the worker has sent and the client has not been given yet. `close` it, whatever happens."""

    def __init__(self, ask: Ask, message: InferRequest, body: Body) -> None:
        self._waiting: list[Chunk] = []
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._asked = asyncio.ensure_future(ask(message, body, self._put))
        self._asked.add_done_callback(self._ended)

    def _put(self, reply: ChunkReply, body: Body) -> None:
        self._waiting.append(Chunk(bytes(body), reply.json_size))
        self._bytes += len(body)
        self._arrived.set()
        if self._bytes > MAX_BEHIND:
            self._asked.cancel()

    def _ended(self, asked: asyncio.Future[tuple[InferReply, Body]]) -> None:
        self._arrived.set()
        if not asked.cancelled():
            asked.exception()  # seen, even where nobody waits for the end any more

    async def take(self) -> list[Chunk]:
        """Waits for pieces; [] when there will be no more."""
        while not self._waiting and not self._asked.done():
            self._arrived.clear()
            await self._arrived.wait()
        found, self._waiting, self._bytes = self._waiting, [], 0
        return found

    async def end(self) -> tuple[InferReply, Body]:
        """The worker's last word, once `take` has given the last piece. Raises what the request failed with."""
        try:
            return await self._asked
        except asyncio.CancelledError:
            if not self._asked.cancelled():
                raise
            raise Cancelled("the answer was read too slowly") from None

    def close(self) -> None:
        """Nobody wants more: the worker stops."""
        self._asked.cancel()
