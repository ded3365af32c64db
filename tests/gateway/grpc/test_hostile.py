"""Peers of the gRPC port that are broken or mean it: each ends with GOAWAY or RST_STREAM, and others do not notice."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as tried
from hypothesis import strategies as st

from modelhub.serving.gateway.grpc import connection, incoming
from modelhub.serving.gateway.grpc.generated import open_inference_pb2 as pb
from modelhub.serving.protocol.messages import InferReply, InferRequest
from support import http2_peer as http2
from support.doors import SERVICE
from support.grpc_front import GrpcFront, answer_body, grpc_serving
from support.http2_peer import DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, RST_STREAM, frame, peer, request
from support.http_front import Model

REQUEST = pb.ModelInferRequest(
    model_name="iris", inputs=[{"name": "x", "shape": [1], "datatype": "FP32"}], raw_input_contents=[bytes(4)]
)
WHOLE = http2.message(REQUEST.SerializeToString())
CALM, CANCEL = 0xB, 0x8
#: What a connection of HTTP/2 ends with that nobody wanted to go on.
NOT_WELL = {0x1, 0x2, 0x3, 0x6, 0x9, 0xB}


async def answering(request: InferRequest, body: Any) -> tuple[InferReply, Any]:
    output, size = answer_body()
    return InferReply(id=0, json_size=size), output


async def fine(front: GrpcFront) -> None:
    """Others are served."""
    assert (await front.infer(REQUEST)).code == "OK"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(http2.SECONDS):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def flood_of_settings() -> bytes:
    return http2.settings(streams=100) * 5000


def flood_of_pings() -> bytes:
    return frame(http2.PING, payload=bytes(8)) * 20_000


def flood_of_nothing() -> bytes:
    return request(1) + frame(DATA, 0, 1) * 20_000


def flood_of_windows() -> bytes:
    return request(1) + frame(http2.WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)) * 20_000


def flood_of_continuations() -> bytes:
    return frame(HEADERS, 0, 1, http2.packed(http2.request_fields())) + frame(http2.CONTINUATION, 0, 1, b"") * 5000


def rapid_resets() -> bytes:
    cancel = struct.pack(">I", CANCEL)
    return b"".join(request(n) + frame(RST_STREAM, 0, n, cancel) for n in range(1, 20_001, 2))


def bomb_of_fields() -> bytes:
    """A field of 4 KB, remembered once and meant a thousand times."""
    block = http2.packed(http2.request_fields()) + http2.packed([("x", "y" * 3900)], 0x40) + bytes([0x80 | 62]) * 1000
    return frame(HEADERS, END_HEADERS | END_STREAM, 1, block)


def long_fields() -> bytes:
    block = http2.packed(http2.request_fields(http2.INFER, ("x", "y" * 70_000)))
    parts = [block[at : at + 16_000] for at in range(0, len(block), 16_000)]
    frames = [frame(HEADERS, 0, 1, parts[0])] + [frame(http2.CONTINUATION, 0, 1, part) for part in parts[1:-1]]
    return b"".join([*frames, frame(http2.CONTINUATION, END_HEADERS, 1, parts[-1])])


def too_large_a_frame() -> bytes:
    return request(1) + bytes([255, 255, 255, DATA, 0, 0, 0, 0, 1])


def more_than_the_window() -> bytes:
    return request(1) + b"".join(frame(DATA, 0, 1, bytes(16_000)) for _ in range(40))


@pytest.mark.parametrize(
    "sent",
    [
        *(flood_of_settings, flood_of_pings, flood_of_nothing, flood_of_windows, flood_of_continuations),
        *(rapid_resets, bomb_of_fields, long_fields, too_large_a_frame),
    ],
)
async def test_floods_and_bombs_end_their_connection(sent: Callable[[], bytes]) -> None:
    model = Model(answering=answering)
    async with grpc_serving(model) as front, peer(front.address) as mean:
        mean.send(sent())
        assert (await mean.goaway()).code in NOT_WELL
        await fine(front)
        assert front.budget.held == 0


async def test_pings_of_a_client_that_keeps_alive_are_fine_and_more_are_not() -> None:
    ping = frame(http2.PING, payload=bytes(8))
    async with grpc_serving(Model()) as front, peer(front.address) as eager:
        for _ in range(3):
            eager.send(ping)
            await eager.until(http2.PING, flags=http2.ACK)
        for _ in range(3):
            eager.send(ping)
            await asyncio.sleep(0)
        eager.send(ping * 3)
        assert (await eager.goaway()).code == CALM


async def test_a_client_that_opens_its_windows_for_every_answer_is_fine() -> None:
    window = struct.pack(">I", 200)
    async with grpc_serving(Model(answering=answering)) as front, peer(front.address) as client:
        client.send(request(1, f"{SERVICE}/ModelStreamInfer"))
        for _ in range(2500):
            opened = [frame(http2.WINDOW_UPDATE, 0, stream, window) for stream in (0, 1)]
            client.send(frame(DATA, 0, 1, WHOLE), *opened, frame(http2.PING, payload=bytes(8)))
            await client.until(DATA, 1)


async def test_a_client_that_takes_nothing_loses_its_calls_and_what_they_hold() -> None:
    async def large(request: InferRequest, body: Any) -> tuple[InferReply, Any]:
        output = {"name": "y", "shape": [1 << 20], "datatype": "UINT8", "parameters": {"binary_data_size": 1 << 20}}
        text = orjson.dumps({"model_name": "iris", "outputs": [output]})
        return InferReply(id=0, json_size=len(text)), text + bytes(1 << 20)

    async with (
        grpc_serving(Model(answering=large), write_timeout=0.5) as front,
        peer(front.address, PREFACE + http2.settings(window=0)) as still,
    ):
        for stream in (1, 3):
            still.send(request(stream), frame(DATA, END_STREAM, stream, WHOLE))
        await still.until(HEADERS, 1)
        await until(lambda: front.budget.held >= 2 << 20)
        assert {(await still.until(RST_STREAM)).code for _ in range(2)} == {CANCEL}
        await until(lambda: not front.budget.held)
        await fine(front)


async def test_a_client_that_says_nothing_loses_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_SECONDS", 0.1)
    for said in (b"", PREFACE[:10], PREFACE):
        async with grpc_serving(Model(), write_timeout=0.5) as front, peer(front.address, said) as silent:
            await silent.goaway()


async def test_a_client_that_is_gone_without_a_word_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "QUIET", 0.1)
    monkeypatch.setattr(connection, "ANSWER_WITHIN", 0.1)
    async with grpc_serving(Model(), write_timeout=0.5) as front, peer(front.address) as gone:
        await gone.until(http2.PING)
        await gone.until_end()


@pytest.mark.parametrize("part", [b"", b"\0\0", http2.message(b"half", 100), http2.message(b"half", 1 << 20)])
async def test_half_a_message_is_not_waited_for(part: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "FIRST_SECONDS", 0.1)
    monkeypatch.setattr(incoming, "BYTES_A_SECOND", 1 << 30)
    async with grpc_serving(Model(), write_timeout=0.5) as front, peer(front.address) as slow:
        slow.send(request(1), frame(DATA, 0, 1, part))
        trailers = await slow.until(HEADERS, 1, END_STREAM)
        assert b"4" in trailers.payload
        await slow.until(RST_STREAM, 1)
        assert front.counters.grpc_errors == {"DEADLINE_EXCEEDED": 1}
        assert front.budget.held == 0


async def ends_in(front: GrpcFront, *data: bytes) -> str:
    """The code of a call that sends this."""
    before = dict(front.counters.grpc_errors)
    async with peer(front.address) as liar:
        liar.send(request(1), *data)
        await liar.until(HEADERS, 1, END_STREAM)
    [code] = [code for code, count in front.counters.grpc_errors.items() if count != before.get(code, 0)] or ["OK"]
    return code


async def test_lengths_that_lie() -> None:
    model = Model(answering=answering)
    async with grpc_serving(model, max_body=1 << 20, max_buffered=1 << 20) as front:
        assert await ends_in(front, frame(DATA, 0, 1, http2.message(b"", 0xFFFFFFFF))) == "RESOURCE_EXHAUSTED"
        assert await ends_in(front, frame(DATA, 0, 1, http2.message(b"", (1 << 20) + 1))) == "RESOURCE_EXHAUSTED"
        assert await ends_in(front, frame(DATA, END_STREAM, 1, http2.message(b"abc", 4))) == "INVALID_ARGUMENT"
        assert await ends_in(front, frame(DATA, END_STREAM, 1, b"\0\0\0")) == "INVALID_ARGUMENT"
        assert await ends_in(front, frame(DATA, END_STREAM, 1, b"")) == "INVALID_ARGUMENT"
        assert await ends_in(front, frame(DATA, 0, 1, http2.message(b"", flag=2))) == "UNIMPLEMENTED"
        assert await ends_in(front, frame(DATA, 0, 1, http2.message(b"abc", flag=1))) == "UNIMPLEMENTED"
        assert not model.asked
        assert await ends_in(front, frame(DATA, 0, 1, WHOLE + b"more"), frame(DATA, 0, 1, WHOLE)) == "OK"
        assert len(model.asked) == 1
        assert front.budget.held == 0
        await fine(front)


async def test_bytes_in_any_pieces_are_the_same_call() -> None:
    model = Model(answering=answering)
    sent = (
        PREFACE + http2.settings() + request(1) + frame(DATA, 0, 1, WHOLE[:7]) + frame(DATA, END_STREAM, 1, WHOLE[7:])
    )
    async with grpc_serving(model) as front, peer(front.address, b"") as slow:
        for at in range(len(sent)):
            slow.send(sent[at : at + 1])
            await asyncio.sleep(0)
        await slow.until(HEADERS, 1, END_STREAM)
    assert len(model.asked) == 1


async def test_a_message_without_room_is_refused_before_it_comes() -> None:
    async with grpc_serving(Model(answering=answering), max_body=1 << 20, max_buffered=1 << 20) as front:
        async with peer(front.address) as first, peer(front.address) as second:
            first.send(request(1), frame(DATA, 0, 1, http2.message(b"", 1 << 20)))
            await until(lambda: front.budget.held == 1 << 20)
            start = pb.ModelInferRequest(model_name="iris").SerializeToString()
            second.send(request(1), frame(DATA, 0, 1, http2.message(start, 1 << 20)))
            await second.until(HEADERS, 1, END_STREAM)
            assert (await second.until(RST_STREAM, 1)).code == 0
            assert front.counters.grpc_errors == {"RESOURCE_EXHAUSTED": 1}
        await until(lambda: not front.budget.held)
        await fine(front)


async def test_small_messages_that_wait_count_together() -> None:
    """A connection may have many half messages; they are held like one body."""
    async with grpc_serving(Model(), max_body=1 << 20, max_buffered=1 << 20) as front:
        async with peer(front.address) as mean:
            for stream in range(1, 201, 2):
                mean.send(request(stream), *[frame(DATA, 0, stream, http2.message(bytes(15_000), 60_000))])
            assert (await mean.until(HEADERS, flags=END_STREAM)).stream > 100
            assert front.budget.held <= (1 << 20) + (64 << 10)
        await until(lambda: not front.budget.held)


FRAMES = st.tuples(st.integers(0, 12), st.integers(0, 255), st.integers(0, 9), st.binary(max_size=60))


@given(st.binary(max_size=400), st.booleans(), st.lists(FRAMES, max_size=6))
@tried(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_any_bytes(data: bytes, greeted: bool, frames: list[tuple[int, int, int, bytes]]) -> None:
    async def send() -> None:
        model = Model(answering=answering)
        first = PREFACE + http2.settings() + request(1) if greeted else PREFACE
        async with grpc_serving(model) as front:
            async with peer(front.address, first) as mean:
                mean.send(*[frame(*each) for each in frames], data)
                await fine(front)
            assert (await front.call("ServerLive", pb.ServerLiveRequest())).code == "OK"
            assert front.budget.held == 0

    asyncio.run(send())


@pytest.mark.parametrize("closes", [False, True], ids=["drain_delay", "the end"])
async def test_clients_are_told_to_go_and_what_they_have_asked_is_answered(closes: bool) -> None:
    """At once when a drain begins; who comes anew is served until the ports close."""
    go = asyncio.Event()

    async def waits(request: InferRequest, body: Any) -> tuple[InferReply, Any]:
        await go.wait()
        return await answering(request, body)

    model = Model(answering=waits)
    async with grpc_serving(model) as front, peer(front.address) as client:
        client.send(request(1), frame(DATA, END_STREAM, 1, WHOLE))
        await until(lambda: bool(model.asked))
        (front.port.refuse if closes else front.port.let_go)()
        announced = await client.until(GOAWAY)
        assert announced.payload[:4] == b"\x7f\xff\xff\xff"
        client.send(request(3), frame(DATA, END_STREAM, 3, WHOLE))  # it had not seen that yet
        asked = await client.until(http2.PING)
        client.send(frame(http2.PING, http2.ACK, 0, asked.payload))
        last = await client.until(GOAWAY)
        assert (int.from_bytes(last.payload[:4], "big"), last.code) == (3, 0)
        assert front.port.busy
        go.set()
        assert {(await client.until(HEADERS, flags=END_STREAM)).stream for _ in range(2)} == {1, 3}
        await client.until_end()
        assert not front.port.busy
        if closes:
            with pytest.raises(ConnectionRefusedError):
                async with peer(front.address):
                    pass
            return
        async with peer(front.address) as another:
            another.send(request(1), frame(DATA, END_STREAM, 1, WHOLE))
            assert (await another.until(HEADERS, flags=END_STREAM)).stream == 1
            front.port.refuse()
            await another.goaway()


async def test_a_call_that_the_client_cancels_is_not_answered() -> None:
    gone = asyncio.Event()

    async def waits(request: InferRequest, body: Any) -> tuple[InferReply, Any]:
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        raise AssertionError

    model = Model(answering=waits)
    async with grpc_serving(model) as front, peer(front.address) as client:
        client.send(request(1), frame(DATA, END_STREAM, 1, WHOLE))
        await until(lambda: bool(model.asked))
        client.send(frame(RST_STREAM, 0, 1, struct.pack(">I", CANCEL)))
        async with asyncio.timeout(10):
            await gone.wait()
        client.send(request(3, f"{SERVICE}/ServerLive"), frame(DATA, END_STREAM, 3, http2.message(b"")))
        assert (await client.until(HEADERS, flags=END_STREAM)).stream == 3
