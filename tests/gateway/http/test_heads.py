"""How large the head of a request may be: one limit for HTTP and gRPC, the same however it arrives."""

from __future__ import annotations

import pytest

from modelhub.serving.gateway.grpc.generated import open_inference_pb2 as pb
from support.grpc_front import grpc_serving
from support.http_front import Model, read_answer, serving

LIMIT = 64 << 10
FIRST = b"POST /v2/models/iris/infer HTTP/1.1\r\n"
NEEDED = b"Host: localhost\r\nContent-Length: 2\r\n"


def head(size: int, *, lines: int = 1) -> bytes:
    """Of a request for the model, with so many bytes in so many more headers."""
    rest = size - len(FIRST + NEEDED) - 2
    each, last = divmod(rest, lines)
    sizes = [each] * (lines - 1) + [each + last]
    return FIRST + NEEDED + b"".join(b"X: %s\r\n" % (b"a" * (size - 5)) for size in sizes) + b"\r\n"


@pytest.mark.parametrize("lines", [1, 2, 50])
@pytest.mark.parametrize("piece", [1 << 20, 30_000, 1000])
@pytest.mark.parametrize(("size", "status"), [(9000, 200), (LIMIT - 100, 200), (LIMIT + 200, 431), (300_000, 431)])
async def test_one_limit_for_all_lines_together(lines: int, piece: int, size: int, status: int) -> None:
    raw = head(size, lines=lines)
    assert len(raw) == size
    async with serving(Model()) as front, front.connection() as (reader, writer):
        for start in range(0, len(raw), piece):
            if writer.is_closing():
                break
            writer.write(raw[start : start + piece])
            if piece < 10_000:
                await writer.drain()
        writer.write(b"{}")
        answer = await read_answer(reader)
        assert front.counters.errors[431] == (status == 431)
    assert answer.status == status


async def test_what_came_before_is_answered_and_bodies_are_no_heads() -> None:
    """Pipelined requests, with large bodies, before a head that is too large."""
    body = b"x" * 200_000
    good = FIRST + b"Host: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    async with serving(Model()) as front, front.connection() as (reader, writer):
        writer.write(good + good + head(LIMIT + 5000, lines=3))
        assert [(await read_answer(reader)).status for _ in range(3)] == [200, 200, 431]
        assert await reader.read() == b""


async def test_the_limit_is_a_setting() -> None:
    async with serving(Model(), max_headers=8 << 10) as front:
        assert (await front.send(head(9000) + b"{}")).status == 431
    async with serving(Model(), max_headers=200_000) as front:
        assert (await front.send(head(190_000) + b"{}")).status == 200


@pytest.mark.parametrize("size", [9000, 40_000, 60_000])
async def test_metadata_of_calls_are_taken_up_to_the_limit(size: int) -> None:
    async with grpc_serving(Model()) as front:
        for _ in range(20):
            assert (await front.call("ServerLive", pb.ServerLiveRequest(), authorization="a" * size)).code == "OK"


@pytest.mark.parametrize("size", [66_000, 200_000])
async def test_metadata_of_calls_beyond_the_limit_are_refused_always(size: int) -> None:
    async with grpc_serving(Model()) as front:
        for _ in range(20):
            outcome = await front.call("ServerLive", pb.ServerLiveRequest(), authorization="a" * size)
            assert outcome.code == "RESOURCE_EXHAUSTED"
