"""The answer to one request piece by piece, between its worker and a client that may read more slowly.

Made by `dataplane/inference.py` for the streams of every front. A worker goes on until MAX_BEHIND bytes have not been
taken by the client, and then waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from ...protocol.codec import Body
from ...protocol.errors import Cancelled
from ...protocol.limits import MAX_BEHIND
from ...protocol.messages import ChunkReply, InferReply, InferRequest

#: `ModelVersion.infer`: a request, its body, and who is told of each chunk.
Ask = Callable[[InferRequest, Body, Callable[[ChunkReply, Body], None]], Coroutine[Any, Any, tuple[InferReply, Body]]]

#: The worker is told what the client has taken, in steps of so many bytes.
STEP = MAX_BEHIND // 16


class Chunk(NamedTuple):
    """One piece: as an InferReply's, its JSON part has `json_size` bytes, None: all of them."""

    body: bytes
    json_size: int | None


class Chunks:
    """What the worker has sent and the client has not been given yet. `close` it, whatever happens."""

    def __init__(
        self,
        ask: Ask,
        message: InferRequest,
        body: Body,
        taken: Callable[[InferRequest, int], None] = lambda message, size: None,
        hold: Callable[[int], None] = lambda size: None,
    ) -> None:
        """`taken`: tells the worker that so many bytes more were taken; `hold` is told how many wait here."""
        self._waiting: list[Chunk] = []
        self._bytes = self._given = self._untold = 0
        self._message = message
        self._tell = taken
        self._hold = hold
        self._closed = False
        self._arrived = asyncio.Event()
        self._asked = asyncio.ensure_future(ask(message, body, self._put))
        self._asked.add_done_callback(self._ended)

    def _put(self, reply: ChunkReply, body: Body) -> None:
        if self._closed:  # it comes before the worker hears of it
            return
        self._waiting.append(Chunk(bytes(body), reply.json_size))
        held = self._bytes + self._given
        self._bytes += len(body)
        self._hold(held + len(body))
        self._arrived.set()
        if held > 2 * MAX_BEHIND:
            self._asked.cancel()  # a worker that does not wait, as ours do

    def _ended(self, asked: asyncio.Future[tuple[InferReply, Body]]) -> None:
        self._arrived.set()
        if not asked.cancelled():
            asked.exception()  # seen, even where nobody waits for the end any more

    async def take(self) -> list[Chunk]:
        """Waits for pieces; [] when there will be no more."""
        self._was_taken()
        while not self._waiting and not self._asked.done():
            self._arrived.clear()
            await self._arrived.wait()
        found, self._waiting = self._waiting, []
        self._given, self._bytes = self._bytes, 0
        return found

    def _was_taken(self) -> None:
        """What was given is written: who asks for more has taken it."""
        self._untold, self._given = self._untold + self._given, 0
        self._hold(self._bytes)
        if self._untold >= STEP:
            self._tell(self._message, self._untold)
            self._untold = 0

    async def end(self) -> tuple[InferReply, Body]:
        """The worker's last word, once `take` has given the last piece. Raises what the request failed with."""
        try:
            return await self._asked
        except asyncio.CancelledError:
            if not self._asked.cancelled():
                raise
            raise Cancelled("the answer was read too slowly") from None

    def close(self) -> None:
        """Nobody wants more: the worker stops, and what waits here is let go. Called once."""
        self._closed = True
        self._asked.cancel()
        del self._asked  # it refers to this: such a circle would keep its request and all pieces until it is found
        self._waiting.clear()
        self._hold(0)
