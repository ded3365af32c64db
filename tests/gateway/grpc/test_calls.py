"""What gRPC itself promises of a call, by an unmodified client and byte by byte: compression, metadata, deadlines."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import orjson
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from modelhub.serving.gateway.grpc.generated import open_inference_pb2 as pb
from modelhub.serving.gateway.grpc.metadata import percent_encoded, timeout_of
from modelhub.serving.gateway.models.states import ModelState
from modelhub.serving.protocol.messages import InferReply, InferRequest
from support import http2_peer as http2
from support.doors import SERVICE
from support.grpc_front import grpc_serving
from support.http2_peer import DATA, END_STREAM, HEADERS, frame, peer, request
from support.http_front import Model

SIZE = 200 << 10


def infer_request(size: int) -> pb.ModelInferRequest:
    tensor = {"name": "x", "shape": [size], "datatype": "UINT8"}
    return pb.ModelInferRequest(model_name="iris", inputs=[tensor], raw_input_contents=[bytes(size)])


async def echo(request: InferRequest, body: Any) -> tuple[InferReply, Any]:
    assert request.json_size is not None
    raw = bytes(body[request.json_size :])
    parameters = {"binary_data_size": len(raw)}
    output = {"name": "y", "shape": [len(raw)], "datatype": "UINT8", "parameters": parameters}
    text = orjson.dumps({"model_name": "iris", "outputs": [output]})
    return InferReply(id=0, json_size=len(text)), text + raw


@pytest.mark.parametrize("kind", [grpc.Compression.Gzip, grpc.Compression.Deflate, grpc.Compression.NoCompression])
@pytest.mark.parametrize("size", [4, 5000, SIZE, 3 << 20])
async def test_compressed_messages_of_any_size(kind: grpc.Compression, size: int) -> None:
    async with grpc_serving(Model(answering=echo)) as front:
        data = infer_request(size).SerializeToString()
        answer = await front.channel.unary_unary(f"{SERVICE}/ModelInfer")(data, compression=kind)
        assert len(pb.ModelInferResponse.FromString(answer).raw_output_contents[0]) == size
        call = front.channel.stream_stream(f"{SERVICE}/ModelStreamInfer")(iter([data] * 3), compression=kind)
        answers = [pb.ModelStreamInferResponse.FromString(each) async for each in call]
        assert [len(each.infer_response.raw_output_contents[0]) for each in answers] == [size] * 3
        while front.budget.held:
            await front.call("ServerLive", pb.ServerLiveRequest())


@pytest.mark.parametrize(
    ("encoding", "deflate"), [("gzip", gzip.compress), ("deflate", zlib.compress)], ids=["gzip", "deflate"]
)
async def test_answers_come_as_the_messages_did(encoding: str, deflate: Callable[[bytes], bytes]) -> None:
    sent = http2.message(deflate(infer_request(SIZE).SerializeToString()), flag=1)
    fields = ("grpc-encoding", encoding), ("grpc-accept-encoding", "identity,deflate,gzip")
    async with grpc_serving(Model(answering=echo)) as front, peer(front.address) as client:
        client.send(request(1, http2.INFER, *fields), frame(DATA, END_STREAM, 1, sent))
        answer = await client.until(DATA, 1)
        assert answer.payload[0] == 1
        found = zlib.decompress(answer.payload[5:], 47)
        assert len(pb.ModelInferResponse.FromString(found).raw_output_contents[0]) == SIZE


@pytest.mark.parametrize("data", [b"", b"no", gzip.compress(b"x")[:-1], gzip.compress(b"x") + b"more"])
async def test_what_is_not_compressed_as_it_says(data: bytes) -> None:
    async with grpc_serving(Model(answering=echo)) as front, peer(front.address) as client:
        sent = http2.message(data, flag=1)
        client.send(request(1, http2.INFER, ("grpc-encoding", "gzip")), frame(DATA, END_STREAM, 1, sent))
        await client.until(HEADERS, 1, END_STREAM)
        assert front.counters.grpc_errors == {"INVALID_ARGUMENT": 1}


async def test_what_services_see_of_metadata() -> None:
    model = Model(answering=echo)
    model.wants_headers = True
    metadata = (("of-mine", "1"), ("of-mine", "2"), ("some-bin", b"\0\xff"), ("other", "a,b"))
    async with grpc_serving(model) as front:
        data = infer_request(4).SerializeToString()
        await front.channel.unary_unary(f"{SERVICE}/ModelInfer")(data, metadata=metadata)
    headers = dict(model.asked[0][0].headers)
    assert "grpc-python" in headers.pop("user-agent")
    assert headers == {"of-mine": "2", "other": "a,b"}


async def test_errors_in_any_language() -> None:
    name = "é☃%\n\x00" * 30
    async with grpc_serving(Model()) as front:
        call = front.channel.unary_unary(f"{SERVICE}/ModelInfer")
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call(pb.ModelInferRequest(model_name=name).SerializeToString())
        assert "é☃%" in str(failed.value.details())


def test_percent_encoding_and_timeouts() -> None:
    assert percent_encoded("a %é\n~") == b"a %25%C3%A9%0A~"
    found = [timeout_of(text) for text in (b"250m", b"1S", b"2M", b"1H", b"5u", b"7n", b"000000001S")]
    assert found == pytest.approx([0.25, 1.0, 120.0, 3600.0, 5e-6, 7e-9, None])  # nine digits are too many
    assert [timeout_of(text) for text in (b"", b"S", b"-1S", b"1.5S", b"1s", b"\xb2S")] == [None] * 6


async def test_a_deadline_ends_what_the_client_does_not() -> None:
    async def waits(request: InferRequest, body: Any) -> tuple[InferReply, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    sent = http2.message(infer_request(4).SerializeToString())
    async with grpc_serving(Model(answering=waits)) as front, peer(front.address) as client:
        client.send(request(1, http2.INFER, ("grpc-timeout", "50m")), frame(DATA, END_STREAM, 1, sent))
        client.send(request(3, f"{SERVICE}/ModelStreamInfer", ("grpc-timeout", "50m")))
        assert {(await client.until(HEADERS, flags=END_STREAM)).stream for _ in range(2)} == {1, 3}
        assert front.counters.grpc_errors == {"DEADLINE_EXCEEDED": 2}


async def test_whoever_watches_is_told() -> None:
    model = Model()
    async with grpc_serving(model) as front:
        data = health_pb2.HealthCheckRequest(service="iris").SerializeToString()
        watching = front.channel.unary_stream("/grpc.health.v1.Health/Watch")(data)
        found = [health_pb2.HealthCheckResponse.FromString(await watching.read()).status]
        model.state = ModelState.DRAINING
        found.append(health_pb2.HealthCheckResponse.FromString(await watching.read()).status)
        assert found == [1, 2]
        watching.cancel()


async def test_reflection_in_both_versions() -> None:
    async with grpc_serving(Model()) as front:

        def ask() -> tuple[list[str], bytes]:
            with grpc.insecure_channel(front.address) as channel:
                database = ProtoReflectionDescriptorDatabase(channel)
                file = database.FindFileContainingSymbol("grpc.health.v1.Health")
                with pytest.raises(KeyError):
                    database.FindFileContainingSymbol("nothing.there")
                return list(database.get_services()), file.SerializeToString()

        services, health = await asyncio.to_thread(ask)
        assert set(services) == {
            "inference.GRPCInferenceService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        assert b"HealthCheckResponse" in health
        listed = [
            await anext(
                aiter(
                    front.channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")(
                        iter([b"\x3a\x00"])
                    )
                )
            )
            for version in ("v1", "v1alpha")
        ]
        assert listed[0] == listed[1]
        assert b"inference.GRPCInferenceService" in listed[0]
