"""What waits of a stream for its client, and what that holds."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from modelhub.serving.gateway.dispatch.streams import Chunks
from modelhub.serving.protocol.messages import ChunkReply, InferReply, InferRequest


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


@pytest.fixture
def _no_collector() -> Iterator[None]:
    """Circles stay, as they do for long where collections are rare."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("end", ["under way", "failed", "answered"])
async def test_what_was_closed_stays_in_no_circle(end: str) -> None:
    """It would keep up to MAX_BEHIND bytes, and the request's body, until a full collection."""
    asked: asyncio.Queue[Callable[[ChunkReply, Any], None]] = asyncio.Queue()

    async def ask(message: InferRequest, body: Any, put: Callable[[ChunkReply, Any], None]) -> Any:
        asked.put_nowait(put)
        if end == "under way":
            await asyncio.Event().wait()
        if end == "failed":
            raise RuntimeError("it broke")
        return InferReply(1), b""

    chunks = Chunks(ask, InferRequest(1, "stream", 0.0, 0.0), bytes(1))
    (await asked.get())(ChunkReply(1), b"piece")
    await asyncio.sleep(0)  # it ends, where it does
    chunks.close()
    left = weakref.ref(chunks)
    del chunks
    for _ in range(10):  # a task that is cancelled ends in the next turn of the loop
        await asyncio.sleep(0)
    assert left() is None
