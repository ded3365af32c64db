"""Bodies that do not come whole: nothing of them is kept."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator

import pytest

from support.http_front import Front, Model, serving, to_bytes

SIZE = 8 << 20


@pytest.fixture
def _no_collector() -> Iterator[None]:
    """Circles stay, as they do for long where collections are rare."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def large_bodies() -> list[int]:
    """Bytes of each body that something still refers to."""
    found = {id(each): len(each) for holder in gc.get_objects() for each in gc.get_referents(holder) if _is_body(each)}
    return list(found.values())


def _is_body(each: object) -> bool:
    return isinstance(each, bytearray) and len(each) > SIZE // 4


async def reset(front: Front) -> None:
    """Half of the body, once it has been taken, then no more: the connection is gone."""
    async with front.connection() as (_, writer):
        whole = to_bytes("POST", "/v2/models/iris/infer", bytes(SIZE), {"Content-Type": "application/json"})
        writer.write(whole[: SIZE // 2])
        await writer.drain()
        async with asyncio.timeout(20):
            while not large_bodies():
                await front.get("/v2/health/live")
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()


async def late(front: Front) -> None:
    """Half of the body, until the deadline has passed."""
    headers = {"Content-Type": "application/json", "X-Request-Timeout": "300ms"}
    async with front.connection() as (reader, writer):
        writer.write(to_bytes("POST", "/v2/models/iris/infer", bytes(SIZE), headers)[: SIZE // 2])
        await reader.readuntil(b"\r\n\r\n")


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("leave", [reset, late])
async def test_a_body_that_ends_early_is_let_go_at_once(leave: Callable[[Front], Awaitable[None]]) -> None:
    model = Model()
    async with serving(model, max_body=SIZE) as front:
        for _ in range(3):
            await leave(front)
        async with asyncio.timeout(20):
            while model.stats.failed < 3:
                await front.get("/v2/health/live")
        assert front.budget.held == 0
        assert large_bodies() == []
