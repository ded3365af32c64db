"""What clients send, and how many models there are, does not decide how long the event loop is busy at a time."""

from __future__ import annotations

import asyncio
from types import FunctionType
from typing import Any

import orjson
import pytest
from grpc_health.v1 import health_pb2

from modelhub.serving.gateway.dataplane.descriptions import Descriptions
from modelhub.serving.gateway.dataplane.statistics import statistics
from modelhub.serving.gateway.dispatch.pending import Pending
from modelhub.serving.gateway.dispatch.queue import RequestQueue
from modelhub.serving.gateway.grpc.generated import open_inference_pb2 as pb
from modelhub.serving.gateway.models.registry import Registry
from modelhub.serving.gateway.system import turns
from modelhub.serving.protocol.errors import NotFound
from modelhub.serving.protocol.messages import InferReply, InferRequest
from modelhub.serving.protocol.redaction import Redactor
from support.grpc_front import answer_body, grpc_serving
from support.http_front import Model, serving
from support.loop_sizes import bounded_sizes

NAMES = ["x" * 201, "x" * 8_000, "iris" * 60]
HUGE = "x" * (16 << 20)


async def binary(request: InferRequest, body: Any) -> tuple[InferReply, Any]:
    answer, size = answer_body()
    return InferReply(id=request.id, json_size=size), answer


@pytest.mark.parametrize("name", NAMES)
async def test_names_longer_than_names_may_be_are_refused_first(name: str) -> None:
    async with serving(Model()) as front:
        for path in (f"/v2/models/{name}/infer", f"/v1/models/{name}:predict", f"/models/{name}/invocations"):
            answer = await front.post(path, b"{}")
            assert answer.status == 404
            assert len(answer.body) < 1000
        for path in (f"/v2/models/{name}", f"/v2/models/{name}/ready", f"/v2/models/{name}/stats"):
            (await front.get(path)).assert_error(404, "200 characters at most")
        (await front.get(f"/v2/models/iris/versions/{name}/ready")).assert_error(404, "no version")
        (await front.get("/v2/models/irsi")).assert_error(404, "did you mean iris?")


@pytest.mark.parametrize("name", [*NAMES, HUGE])
async def test_names_in_messages_too(name: str) -> None:
    async with grpc_serving(Model()) as front:
        outcome = await front.infer(pb.ModelInferRequest(model_name=name))
        assert (outcome.code, outcome.messages) == ("NOT_FOUND", [])
        for method, request in (
            ("ModelReady", pb.ModelReadyRequest(name=name)),
            ("ModelMetadata", pb.ModelMetadataRequest(name=name)),
            ("ModelStatistics", pb.ModelStatisticsRequest(name=name)),
        ):
            code = (await front.call(method, request)).code
            assert code in ("OK", "NOT_FOUND") if len(name) < 10_000 else code == "RESOURCE_EXHAUSTED"
        streamed = await front.stream(pb.ModelInferRequest(model_name=name))
        assert "names have 200 characters at most" in streamed.messages[0].error_message
        assert streamed.messages[0].ByteSize() < 2000
        check = front.channel.unary_unary("/grpc.health.v1.Health/Check")
        with pytest.raises(Exception, match="there is no service or model"):
            await check(health_pb2.HealthCheckRequest(service=name).SerializeToString())


def tensors(count: int) -> pb.ModelInferRequest:
    inputs = [pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1]) for _ in range(count)]
    return pb.ModelInferRequest(model_name="iris", inputs=inputs, raw_input_contents=[b"1234"] * count)


def one(**tensor: Any) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(model_name="iris", inputs=[{"name": "x", **tensor}])


PARTS = {
    "tensors": tensors(9_000),
    "dimensions": one(datatype="FP32", shape=[1] * 100_000),
    "parameters": one(
        datatype="FP32", shape=[0], parameters={f"{n}": pb.InferParameter(int64_param=1) for n in range(9_000)}
    ),
    "parameters of the request": pb.ModelInferRequest(
        model_name="iris", parameters={f"{n}": pb.InferParameter(int64_param=1) for n in range(9_000)}
    ),
    "outputs": pb.ModelInferRequest(model_name="iris", outputs=[{"name": "y"}] * 20_000),
    "texts": one(datatype="BYTES", shape=[50_000], contents={"bytes_contents": [b""] * 50_000}),
    "integers": one(datatype="INT32", shape=[100_000], contents={"int_contents": [1] * 100_000}),
}


@pytest.mark.parametrize("kind", PARTS)
async def test_messages_of_very_many_small_parts_are_translated_aside(kind: str) -> None:
    async with grpc_serving(Model(answering=binary)) as front:
        outcome = await front.infer(PARTS[kind])
        expected = "INVALID_ARGUMENT" if kind == "dimensions" else "OK"
        assert outcome.code == expected, outcome
        assert (await front.infer(tensors(2))).code == "OK"


async def test_a_shape_without_end_is_no_number_without_end() -> None:
    request = one(datatype="FP32", shape=[2] * 50_000, contents={"fp32_contents": [1.0]})
    async with grpc_serving(Model()) as front:
        outcome = await front.infer(request)
    assert outcome.code == "INVALID_ARGUMENT"


async def test_errors_quote_no_name_without_end() -> None:
    for tensor in (
        {"datatype": "FP32", "shape": [3], "contents": {"fp32_contents": [1.0]}},
        {"datatype": "FP16", "shape": [1], "contents": {"fp32_contents": [1.0]}},
        {"datatype": "FP32", "shape": [1], "parameters": {"p" * 100_000: pb.InferParameter()}},
    ):
        request = pb.ModelInferRequest(model_name="iris", inputs=[{"name": "x" * 100_000, **tensor}])
        async with grpc_serving(Model()) as front:
            streamed = await front.stream(request)
        assert 0 < len(streamed.messages[0].error_message) < 1000


async def test_what_has_only_names_in_it_is_small() -> None:
    async with serving(Model()) as front:
        big = b'{"parameters": {"config": "' + b"x" * 70_000 + b'"}}'
        for path in ("/v2/repository/index", "/v2/repository/models/iris/load", "/v2/repository/models/iris/unload"):
            (await front.post(path, big)).assert_error(413)
        assert front.operators.asked == []
        many = "&".join(f"a{n}=1" for n in range(500))
        (await front.post(f"/v2/models/iris/infer?{many}", b"{}")).assert_error(400, "more than 256 parameters")
        long = {"X-Request-Timeout": "1s" * 2000}
        (await front.post("/v2/models/iris/infer", b"{}", long)).assert_error(400, "too long for a duration")


class Versions(Registry):
    """So many models that no list of them is made in one go."""

    def __init__(self, count: int) -> None:
        super().__init__()
        for number in range(count):
            self.add(Model(f"model-{number}"))  # type: ignore[arg-type]


async def test_an_unknown_name_is_compared_with_a_limited_number() -> None:
    with pytest.raises(NotFound, match="did you mean model-12"):
        Versions(3000).find("model-12x")


@pytest.mark.parametrize("what", ["index", "models", "statistics"])
async def test_lists_of_all_models_let_others_have_their_turn(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setattr(turns, "TURN", 0.0)
    registry = Versions(300)
    about = Descriptions(registry, None)  # type: ignore[arg-type]
    making = asyncio.ensure_future(getattr(about, what)() if what != "statistics" else statistics(registry))
    others = 0
    while not making.done():
        await asyncio.sleep(0)
        others += 1
    assert others >= 300
    found = making.result()
    assert len(found["model_stats"] if what == "statistics" else found) == 300


async def test_who_leaves_a_long_line_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0

    class Waiting(Pending):
        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return self is other

        __hash__ = object.__hash__

    line, loop = RequestQueue(), asyncio.get_running_loop()
    waiting: list[Pending] = [
        Waiting(InferRequest(number, "infer", 0.0, 0.0), b"", loop.create_future(), None) for number in range(2000)
    ]
    for each in waiting:
        line.append(each)
    for each in reversed(waiting):
        line.remove(each)
        line.remove(each)
    assert (line.count, list(line)) == (0, [])
    line.put_back(waiting[:3])
    assert [line.popleft() for _ in range(3)] == waiting[:3]
    assert compared < 10_000, "one comparison each, not one for each that waits"


async def test_the_check_itself_sees_what_is_too_much() -> None:
    def mask() -> str:
        return Redactor().clean("x" * 5000)

    as_the_gateway = FunctionType(mask.__code__, {"Redactor": Redactor, "__name__": "modelhub.serving.gateway"})

    with bounded_sizes() as found:
        orjson.loads(b"[" + b"1," * 300_000 + b"1]")  # by a test, not by the gateway
        await asyncio.to_thread(as_the_gateway)
        assert found == []
        as_the_gateway()
    assert found == ["clean: 5000 characters to mask, 4096 are allowed on the event loop"]
