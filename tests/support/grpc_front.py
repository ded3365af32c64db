"""The gateway's gRPC port, before models that are made for a test (`http_front.Model`)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import grpc
import grpc.aio
import orjson

from modelhub.serving.config.server import ServerSettings
from modelhub.serving.gateway.dataplane.budget import Budget
from modelhub.serving.gateway.dataplane.control import Control
from modelhub.serving.gateway.dataplane.descriptions import Descriptions
from modelhub.serving.gateway.dataplane.inference import Inference
from modelhub.serving.gateway.grpc.generated import open_inference_pb2 as pb
from modelhub.serving.gateway.grpc.server import GrpcPort, listening
from modelhub.serving.gateway.models.registry import Registry
from modelhub.serving.gateway.security.guard import guard_of
from modelhub.serving.gateway.telemetry.counters import Counters

from .doors import SERVICE
from .http_front import Model, Nothing

# Once for all tests: it would stop and start with each front, and its end blocks.
grpc.aio.init_grpc_aio()

OUTPUT = {"name": "y", "shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": 4}}


def answer_body(value: bytes = bytes(4)) -> tuple[bytes, int]:
    """A V2 answer in the binary form, as a worker sends it, and the length of its JSON part."""
    text = orjson.dumps({"model_name": "iris", "outputs": [OUTPUT]})
    return text + value, len(text)


class Outcome(NamedTuple):
    """How a call ended: its code, the messages that came, and the metadata of both ends."""

    code: str
    messages: list[Any]
    initial: dict[str, Any]
    trailing: dict[str, Any]


class GrpcFront:
    port: GrpcPort

    def __init__(
        self, address: str, channel: grpc.aio.Channel, counters: Counters, budget: Budget, operators: Nothing
    ) -> None:
        self.address = address
        self.channel = channel
        self.operators = operators
        self.counters = counters
        self.budget = budget

    async def infer(self, request: pb.ModelInferRequest, **metadata: str) -> Outcome:
        """ModelInfer; names in `metadata` have dashes for underscores."""
        call = self.channel.unary_unary(f"{SERVICE}/ModelInfer")(request.SerializeToString(), metadata=_pairs(metadata))
        try:
            messages = [pb.ModelInferResponse.FromString(await call)]
        except grpc.aio.AioRpcError:
            messages = []
        return await _outcome(call, messages)

    async def call(self, method: str, request: Any, **metadata: str) -> Outcome:
        """Another method; its answer's bytes are the message."""
        call = self.channel.unary_unary(f"{SERVICE}/{method}")(request.SerializeToString(), metadata=_pairs(metadata))
        try:
            messages = [await call]
        except grpc.aio.AioRpcError:
            messages = []
        return await _outcome(call, messages)

    async def stream(self, *requests: pb.ModelInferRequest, **metadata: str) -> Outcome:
        """ModelStreamInfer with these requests."""
        data = iter([request.SerializeToString() for request in requests])
        call = self.channel.stream_stream(f"{SERVICE}/ModelStreamInfer")(data, metadata=_pairs(metadata))
        messages = [pb.ModelStreamInferResponse.FromString(each) async for each in call]
        return await _outcome(call, messages)


async def _outcome(call: Any, messages: list[Any]) -> Outcome:
    code = await call.code()
    return Outcome(code.name, messages, dict(await call.initial_metadata()), dict(await call.trailing_metadata()))


def _pairs(metadata: dict[str, str]) -> list[tuple[str, str]]:
    return [(name.replace("_", "-"), value) for name, value in metadata.items()]


@asynccontextmanager
async def grpc_serving(
    *models: Model, admin: bool = False, token: str | None = None, **settings: Any
) -> AsyncIterator[GrpcFront]:
    """A gRPC port before these models until the end of the block; `admin`: open to operators, who show `token`."""
    registry = Registry()
    for model in models:
        registry.add(model)  # type: ignore[arg-type]
    counters = Counters()
    server = ServerSettings(host="127.0.0.1", grpc_port=0, **settings)
    budget = Budget(server.max_body, server.max_buffered or 1 << 30)
    about = Descriptions(registry, None)  # type: ignore[arg-type]
    operators = Nothing()
    control = Control(operators, operators, guard_of("127.0.0.1", token), is_open=admin)  # type: ignore[arg-type]
    async with (
        listening(server, Inference(registry, budget), about, counters, control) as port,
        grpc.aio.insecure_channel(port.address) as channel,
    ):
        front = GrpcFront(port.address, channel, counters, budget, operators)
        front.port = port
        yield front
