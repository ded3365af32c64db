"""What waits of a stream for its client, and what that holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from modelhub.serving.gateway.dispatch.streams import Chunks
from modelhub.serving.protocol.messages import ChunkReply, InferRequest


async def test_a_piece_that_comes_after_the_client_has_left_holds_nothing() -> None:
    asked: asyncio.Queue[Callable[[ChunkReply, Any], None]] = asyncio.Queue()

    async def ask(message: InferRequest, body: Any, put: Callable[[ChunkReply, Any], None]) -> Any:
        asked.put_nowait(put)
        await asyncio.Event().wait()

    held = [0]
    chunks = Chunks(ask, InferRequest(1, "stream", 0.0, 0.0), b"", hold=held.append)
    put = await asked.get()
    put(ChunkReply(1), b"piece")
    assert held[-1] == 5
    chunks.close()
    put(ChunkReply(1), b"late")
    assert held[-1] == 0
