"""How many bytes of requests a gateway holds at once: what is over is refused, and nothing is held for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from modelhub.serving.gateway.dataplane.budget import SMALL
from modelhub.serving.gateway.grpc.call import LARGE as LARGE_MESSAGE
from modelhub.serving.gateway.grpc.generated import open_inference_pb2 as pb
from modelhub.serving.protocol.messages import InferReply, InferRequest
from support.grpc_front import answer_body, grpc_serving
from support.http_front import Answer, Front, Model, read_answer, serving

INFER = "/v2/models/iris/infer"
LARGE = 300_000  # bytes of a body that does not come in one piece with its head


async def until_held(front: Front, size: int) -> None:
    async with asyncio.timeout(20):
        while f"modelhub_buffered_bytes {float(size)}\n" not in (await front.get("/metrics")).body.decode():
            pass


async def post_late(front: Front, length: str) -> Answer:
    """Sends a small body only after its head was looked at."""
    async with front.connection() as (reader, writer):
        writer.write(f"POST {INFER} HTTP/1.1\r\nHost: x\r\n{length}\r\nExpect: 100-continue\r\n\r\n".encode())
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"2\r\n{}\r\n0\r\n\r\n" if "chunked" in length else b"{}")
        return await read_answer(reader)


async def test_more_bodies_than_may_be_held_are_refused_before_they_are_sent() -> None:
    asked, go = asyncio.Queue[None](), asyncio.Event()

    async def waits(request: InferRequest, body: Any) -> tuple[InferReply, Any]:
        asked.put_nowait(None)
        await go.wait()
        return InferReply(id=request.id), b"{}"

    model, whole = Model(answering=waits), b"x" * LARGE
    async with serving(model, max_body=LARGE, max_buffered=LARGE + 1) as front:
        first = asyncio.create_task(front.post(INFER, whole))
        await asked.get()
        assert front.budget.held == LARGE
        announced = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {LARGE}\r\n"
        for head in (announced, announced + "Expect: 100-continue\r\n"):
            answer = await front.send(f"{head}\r\n".encode())
            answer.assert_error(429, "293KiB (max_buffered)", "try again later")
            assert answer.headers["retry-after"] == "1"
        async with front.connection() as (reader, writer):  # one that does not say how long it is
            writer.write(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
            writer.write(f"{LARGE:x}\r\n".encode() + whole + b"\r\n")
            (await read_answer(reader)).assert_error(429, "max_buffered")
        assert len(model.asked) == 1
        assert model.stats.requests["infer", 429] == 3
        small = [  # these are not counted
            asyncio.create_task(front.post(INFER, b"{}")),
            asyncio.create_task(post_late(front, "Content-Length: 2")),
            asyncio.create_task(post_late(front, "Transfer-Encoding: chunked")),
        ]
        async with asyncio.timeout(20):
            for _ in small:
                await asked.get()
        text = (await front.get("/metrics")).body.decode()
        assert f"modelhub_buffered_bytes {float(LARGE)}" in text
        assert f"modelhub_buffered_limit_bytes {float(LARGE + 1)}" in text
        go.set()
        assert [(await each).status for each in (first, *small)] == [200] * 4
        assert (await front.post(INFER, whole)).status == 200
        assert front.budget.held == 0


@pytest.mark.parametrize("end", ["deadline", "client"])
async def test_a_body_that_never_ends_is_held_no_longer(end: str) -> None:
    async with serving(Model(), max_body=LARGE, max_buffered=LARGE) as front:
        async with front.connection() as (reader, writer):
            head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {LARGE}\r\n"
            timeout = "X-Request-Timeout: 50ms\r\n" if end == "deadline" else ""
            writer.write(f"{head}{timeout}\r\nhalf".encode())
            await until_held(front, LARGE)
            if end == "deadline":
                (await read_answer(reader)).assert_error(504, "body")
        await until_held(front, 0)


@pytest.mark.parametrize("kind", ["infer", "generate", "infer_stream", "generate_stream"])
async def test_a_large_body_is_not_read_where_the_queue_is_full(kind: str) -> None:
    model = Model()
    model.full = True
    async with serving(model) as front, front.connection() as (reader, writer):
        head = f"POST /v2/models/iris/{kind} HTTP/1.1\r\nHost: x\r\nContent-Length: {LARGE}\r\n\r\n"
        writer.write(f"{head}half".encode())
        (await read_answer(reader)).assert_error(429, "queue is full")
    assert not model.asked
    assert [status for (_, status), count in model.stats.requests.items() if count] == [429]


async def test_a_large_grpc_message_is_not_converted_where_the_queue_is_full() -> None:
    model = Model()
    model.full = True
    large = pb.ModelInferRequest(model_name="iris", raw_input_contents=[bytes(LARGE_MESSAGE)])
    large.inputs.add(name="x", datatype="FP64", shape=[LARGE_MESSAGE])  # too few bytes: not looked at
    async with grpc_serving(model) as front:
        assert (await front.infer(large)).code == "RESOURCE_EXHAUSTED"
        assert front.budget.held == 0
    assert not model.asked


async def test_streams_hold_theirs_too() -> None:
    async with serving(Model(), max_body=LARGE, max_buffered=LARGE) as front:
        head = f"POST /v2/models/iris/infer_stream HTTP/1.1\r\nHost: x\r\nContent-Length: {LARGE}\r\n\r\n"
        async with front.connection() as (_, writer):
            writer.write(f"{head}half".encode())
            await until_held(front, LARGE)
            (await front.send(head.encode())).assert_error(429, "max_buffered")
        await until_held(front, 0)


@pytest.mark.parametrize("size", [SMALL, LARGE_MESSAGE])
@pytest.mark.parametrize("streamed", [False, True])
async def test_grpc_messages_count_too(streamed: bool, size: int) -> None:
    running, go = asyncio.Event(), asyncio.Event()

    async def waits(request: InferRequest, body: Any) -> tuple[InferReply, Any]:
        running.set()
        await go.wait()
        text, size = answer_body()
        return InferReply(id=request.id, json_size=size), text

    large = pb.ModelInferRequest(model_name="iris", id="large", raw_input_contents=[bytes(size)])
    large.inputs.add(name="x", datatype="UINT8", shape=[size])
    model = Model(answering=waits)
    async with grpc_serving(model, max_body=2 * size, max_buffered=2 * size) as front:
        first = asyncio.create_task(front.infer(large))
        await running.wait()
        assert front.budget.held == large.ByteSize()
        if streamed:
            (refused,) = (await front.stream(large)).messages
            assert "max_buffered" in refused.error_message
            assert refused.infer_response.id == "large"
        else:
            assert (await front.infer(large)).code == "RESOURCE_EXHAUSTED"
        assert model.stats.requests["grpc_stream" if streamed else "grpc", 429] == 1
        go.set()
        assert (await first).code == "OK"
        assert front.budget.held == 0
    assert len(model.asked) == 1
