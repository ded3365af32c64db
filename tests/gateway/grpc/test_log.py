"""What a gRPC request leaves behind: the line in the log, the id that the client gets too, the trace, the counters."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from modelhub.serving.gateway.grpc.generated import open_inference_pb2 as pb
from modelhub.serving.gateway.telemetry import tracing
from modelhub.serving.protocol.errors import InvalidRequest, ModelError, QueueFull
from modelhub.serving.protocol.messages import InferReply, InferRequest
from support.grpc_front import answer_body, grpc_serving
from support.http_front import Model

SECRET = "the-payload"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
REQUEST = pb.ModelInferRequest(
    model_name="iris", inputs=[{"name": "x", "shape": [1], "datatype": "FP32"}], raw_input_contents=[bytes(4)]
)


async def answering(request: InferRequest, body: Any) -> tuple[InferReply, Any]:
    output, size = answer_body()
    return InferReply(id=0, json_size=size, decode_ns=1000, predict_ns=2000, encode_ns=3000), output


async def raising(request: InferRequest, body: Any) -> tuple[InferReply, Any]:
    raise ModelError(f"could not convert {SECRET}")


async def refusing(request: InferRequest, body: Any) -> tuple[InferReply, Any]:
    return InferReply(id=0, status=422), b'{"statusCode": 422, "message": "the-payload"}'


async def full(request: InferRequest, body: Any) -> tuple[InferReply, Any]:
    raise QueueFull("model iris/1 has 200 requests waiting", retry_after=2.0)


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(provider)
    yield exporter
    tracing.stop()


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [
        vars(record) | {"text": record.getMessage()} for record in caplog.records if record.name == "modelhub.requests"
    ]


async def test_an_error_is_logged_with_an_id_that_the_client_gets(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with grpc_serving(Model(answering=raising)) as front:
        without = await front.infer(REQUEST)
        ours = await front.infer(REQUEST, x_request_id="abc-1")
        unsafe = await front.infer(REQUEST, x_request_id="x" * 500)
    first, second, third = lines(caplog)
    assert (first["levelname"], first["model"], first["version"]) == ("WARNING", "iris", "1")
    assert (first["route"], first["status"]) == ("grpc", 500)
    assert SECRET not in str([line["text"] for line in lines(caplog)])
    assert "model_error" in first["text"]
    assert {answer.code for answer in (without, ours, unsafe)} == {"INTERNAL"}
    assert without.trailing["x-request-id"] == first["request_id"]
    assert ours.trailing["x-request-id"] == second["request_id"] == "abc-1"
    assert unsafe.trailing["x-request-id"] == third["request_id"] != "x" * 500


async def test_errors_before_there_is_a_model_carry_the_id_too() -> None:
    unknown = pb.ModelInferRequest(model_name="nosuch")
    async with grpc_serving(Model()) as front:
        answer = await front.infer(unknown, x_request_id="abc-2")
        assert (answer.code, answer.trailing["x-request-id"]) == ("NOT_FOUND", "abc-2")
        assert front.counters.grpc_errors == {"NOT_FOUND": 1}
        assert not front.counters.errors, "that is HTTP's"


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [(refusing, 400, "the service's own statusCode"), (full, 429, "200 requests waiting")],
)
async def test_what_is_the_clients_is_info(
    caplog: pytest.LogCaptureFixture, answer: Any, status: int, words: str
) -> None:
    caplog.set_level(logging.INFO)
    model = Model(answering=answer)
    async with grpc_serving(model) as front:
        ended = await front.infer(REQUEST)
    (line,) = lines(caplog)
    assert (line["levelname"], line["status"]) == ("INFO", status)
    assert words in line["text"]
    assert SECRET not in line["text"]
    assert ended.trailing.get("retry-after") == ("2" if answer is full else None)
    assert model.stats.requests == {("grpc", status): 1}


async def test_success_is_silent_but_at_level_debug(caplog: pytest.LogCaptureFixture) -> None:
    async with grpc_serving(Model(answering=answering)) as front:
        caplog.set_level(logging.INFO)
        silent = await front.infer(REQUEST)
        assert (silent.code, silent.initial, silent.trailing) == ("OK", {}, {})
        assert lines(caplog) == []
        caplog.set_level(logging.DEBUG, "modelhub")
        answer = await front.infer(REQUEST, x_request_id="abc-3")
    assert answer.trailing["x-request-id"] == "abc-3"
    (line,) = lines(caplog)
    assert (line["status"], line["request_id"], line["route"]) == (200, "abc-3", "grpc")
    assert (line["decode_ms"], line["predict_ms"], line["encode_ms"]) == (0.001, 0.002, 0.003)


async def test_an_answer_that_grpc_cannot_carry_is_a_failure() -> None:
    async def odd(request: InferRequest, body: Any) -> tuple[InferReply, Any]:
        return InferReply(id=0), b'{"statusCode": 200, "data": 1}'

    model = Model(answering=odd)
    async with grpc_serving(model) as front:
        assert (await front.infer(REQUEST)).code == "INTERNAL"
    assert (model.stats.requests, model.stats.succeeded) == ({("grpc", 500): 1}, 0)


async def test_requests_of_a_stream(caplog: pytest.LogCaptureFixture) -> None:
    """Its id comes with the first metadata, because an error can follow at any time."""
    turns = iter([answering, raising, answering])
    model = Model(answering=lambda request, body: next(turns)(request, body))
    caplog.set_level(logging.INFO)
    async with grpc_serving(model) as front:
        answer = await front.stream(REQUEST, REQUEST, pb.ModelInferRequest(model_name="nosuch"), REQUEST)
        assert front.counters.grpc_errors == {"INTERNAL": 1, "NOT_FOUND": 1}
        assert (await front.stream(x_request_id="abc-4")).initial["x-request-id"] == "abc-4"
    assert answer.code == "OK"
    assert [bool(each.error_message) for each in answer.messages] == [False, True, True, False]
    (line,) = lines(caplog)
    assert (line["route"], line["status"]) == ("grpc_stream", 500)
    assert answer.initial["x-request-id"] == line["request_id"]
    assert model.stats.requests == {("grpc_stream", 200): 2, ("grpc_stream", 500): 1}


async def test_traces(spans: InMemorySpanExporter) -> None:
    turns = iter([answering, raising, InvalidRequest("no")])

    async def in_turn(request: InferRequest, body: Any) -> tuple[InferReply, Any]:
        turn = next(turns)
        if isinstance(turn, InvalidRequest):
            raise turn
        assert request.trace_parent == f"00-{TRACE}-{PARENT}-01"
        return await turn(request, body)

    async with grpc_serving(Model(answering=in_turn)) as front:
        await front.infer(REQUEST, traceparent=f"00-{TRACE}-{PARENT}-01", x_request_id="abc-5")
        await front.stream(REQUEST, traceparent=f"00-{TRACE}-{PARENT}-01")
        await front.infer(REQUEST)
    found = spans.get_finished_spans()
    whole, streamed, refused = [span for span in found if span.kind.name == "SERVER"]
    assert [span.name for span in (whole, streamed)] == ["grpc iris", "grpc_stream iris"]
    for span in (whole, streamed):
        assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
    known = dict(whole.attributes or {})
    assert (known["modelhub.request_id"], known["rpc.response.status_code"]) == ("abc-5", "OK")
    assert "http.response.status_code" not in known

    def children(parent: Any) -> set[str]:
        return {span.name for span in found if span.parent and span.parent.span_id == parent.context.span_id}

    assert children(whole) == {"queue", "worker"}
    [worker] = [span for span in found if span.parent and span.parent.span_id == whole.context.span_id][1:]
    assert children(worker) >= {"decode", "predict", "encode"}
    assert (streamed.status.status_code, streamed.status.description) == (StatusCode.ERROR, "model_error")
    assert dict(streamed.attributes or {})["rpc.response.status_code"] == "INTERNAL"
    assert refused.status.status_code is StatusCode.UNSET, "the client's mistake"
