"""Many connections, and clients that do not read: who comes in, who has to go, what is held for them meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from modelhub.serving.gateway.system import crowd
from modelhub.serving.protocol.limits import MAX_BEHIND
from modelhub.serving.protocol.messages import ChunkReply, InferReply, InferRequest
from support.http_front import Front, Model, read_answer, serving, to_bytes

INFER = "/v2/models/iris/infer"
LIVE = to_bytes("GET", "/v2/health/live")
LARGE = 20_000_000


class Busy(Model):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__(answering=self._wait)
        self.begun: asyncio.Queue[None] = asyncio.Queue()
        self.go = asyncio.Event()

    async def _wait(self, request: InferRequest, body: Any) -> tuple[InferReply, Any]:
        self.begun.put_nowait(None)
        await self.go.wait()
        return InferReply(id=request.id), b"{}"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def served(front: Front) -> None:
    async with asyncio.timeout(10):
        while (await front.post("/v2/models/iris/infer", b"{}")).status != 200:
            pass  # the server has not seen yet that the others are closed


async def test_idle_connections_leave_for_new_ones_the_longest_idle_first() -> None:
    async with serving(Model(), max_connections=4) as front, AsyncExitStack() as stack:
        kept = []
        for _ in range(3):
            reader, writer = await stack.enter_async_context(front.connection())
            writer.write(LIVE)
            assert (await read_answer(reader)).status == 200
            kept.append((reader, writer))
        for _ in range(6):
            assert (await front.get("/v2/health/live")).status == 200
        reader, writer = await stack.enter_async_context(front.connection())
        writer.write(LIVE)
        assert (await read_answer(reader)).status == 200
        assert await kept[0][0].read() == b"", "it has been idle for longest"
        _, writer = kept[-1]
        writer.write(LIVE)
        assert (await read_answer(kept[-1][0])).status == 200, "there was no need"


async def test_who_says_nothing_leaves_for_new_ones() -> None:
    async with serving(Model(), max_connections=4) as front, AsyncExitStack() as stack:
        for _ in range(20):
            await stack.enter_async_context(front.connection())
        await served(front)


async def test_probes_find_a_place_whatever_goes_on_and_others_are_told() -> None:
    model = Busy()
    async with serving(model, max_connections=2) as front:
        asked = [asyncio.create_task(front.post(INFER, b"{}")) for _ in range(2)]
        for _ in asked:
            await model.begun.get()
        for _ in range(3):
            assert (await front.get("/v2/health/ready")).status == 200
            assert b"modelhub_build_info" in (await front.get("/metrics")).body
        answer = await front.post(INFER, b"{}")
        answer.assert_error(503, "server.max_connections")
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["connection"] == "close"
        model.go.set()
        assert [(await each).status for each in asked] == [200, 200]
        await served(front)


async def test_the_places_of_probes_are_not_endless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "PROBES", 0)
    model = Busy()
    async with serving(model, max_connections=1) as front:
        first = asyncio.create_task(front.post(INFER, b"{}"))
        await model.begun.get()
        async with front.connection() as (reader, _):
            answer = await read_answer(reader)
            answer.assert_error(503, "server.max_connections")
            assert await reader.read() == b""
        model.go.set()
        assert (await first).status == 200


async def large(request: InferRequest, body: Any) -> tuple[InferReply, Any]:
    return InferReply(id=request.id), memoryview(bytes(LARGE))


async def ask_and_read_nothing(front: Front, stack: AsyncExitStack) -> asyncio.StreamReader:
    reader, writer = await stack.enter_async_context(front.connection())
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(to_bytes("POST", INFER, b"{}"))
    return reader


async def test_an_answer_counts_until_it_is_written() -> None:
    model = Model(answering=large)
    async with serving(model, max_buffered=3 * LARGE, max_body=LARGE) as front, AsyncExitStack() as stack:
        for _ in range(3):
            await ask_and_read_nothing(front, stack)
        await until(lambda: front.budget.held == 3 * LARGE)
        refused = await front.post(INFER, b"{}")
        assert (refused.status, b"max_buffered" in refused.body) == (429, True)


async def test_a_client_that_reads_nothing_loses_its_connection() -> None:
    async with serving(Model(answering=large), write_timeout="300ms") as front, AsyncExitStack() as stack:
        await ask_and_read_nothing(front, stack)
        await until(lambda: front.budget.held == LARGE)
        await until(lambda: not front.budget.held)


async def test_a_client_that_reads_slowly_keeps_its_connection() -> None:
    async with serving(Model(answering=large), write_timeout="300ms") as front, front.connection() as (reader, writer):
        writer.write(to_bytes("POST", INFER, b"{}"))
        await reader.readuntil(b"\r\n\r\n")
        left, turns = LARGE, 0
        while left:
            left -= len(await reader.read(400_000))
            turns += 1
            if turns % 4 == 0:
                await asyncio.sleep(0.02)
        assert turns > 50


async def test_a_stream_of_any_size_reaches_who_reads_and_its_worker_is_told() -> None:
    piece, count = bytes(1 << 20), 2 * MAX_BEHIND >> 20

    class Streams(Model):
        async def infer(self, request: InferRequest, body: Any, chunk: Any = None) -> tuple[InferReply, Any]:
            for number in range(1, count + 1):
                chunk(ChunkReply(request.id), piece)
                await until(lambda: number * len(piece) - sum(self.was_taken) <= MAX_BEHIND)  # noqa: B023
            return InferReply(id=request.id), b""

    model = Streams()
    async with serving(model) as front, front.connection() as (reader, writer), asyncio.timeout(30):
        writer.write(to_bytes("POST", "/v2/models/iris/infer_stream", b"{}"))
        await reader.readuntil(b"\r\n\r\n")
        size, held = 0, 0
        while not (data := await reader.read(1 << 20)).endswith(b"0\r\n\r\n"):
            size, held = size + len(data), max(held, front.budget.held)
        assert size + len(data) > count * len(piece)
        assert 0 < held <= MAX_BEHIND + 2 * len(piece)
        assert front.budget.held == 0
