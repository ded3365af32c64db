"""Large answers over gRPC are held within the budget until they are written: a call's, and each one of a stream."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from modelhub.serving.gateway.grpc.generated import open_inference_pb2 as pb
from modelhub.serving.protocol.messages import InferReply, InferRequest
from support.grpc_front import grpc_serving
from support.http_front import Model

SIZE = 300 << 10
REQUEST = pb.ModelInferRequest(
    model_name="iris", inputs=[{"name": "x", "shape": [1], "datatype": "FP32"}], raw_input_contents=[bytes(4)]
)


async def large(request: InferRequest, body: Any) -> tuple[InferReply, Any]:
    output = {"name": "y", "shape": [SIZE], "datatype": "UINT8", "parameters": {"binary_data_size": SIZE}}
    text = orjson.dumps({"model_name": "iris", "outputs": [output]})
    return InferReply(id=0, json_size=len(text)), text + bytes(SIZE)


async def test_answers_of_one_stream_do_not_add_up() -> None:
    async with grpc_serving(Model(answering=large), max_body=SIZE, max_buffered=SIZE * 3 // 2) as front:
        answers = await front.stream(*[REQUEST] * 4)
        assert [(each.error_message, len(each.infer_response.raw_output_contents)) for each in answers.messages] == [
            ("", 1)
        ] * 4
        assert front.budget.held == 0


async def test_an_answer_without_room_is_refused_and_one_that_is_written_holds_nothing() -> None:
    async with grpc_serving(Model(answering=large), max_body=SIZE, max_buffered=SIZE * 3 // 2) as front:
        with front.budget.holding(SIZE):
            assert (await front.infer(REQUEST)).code == "RESOURCE_EXHAUSTED"
            assert [each.error_message for each in (await front.stream(REQUEST)).messages] != [""]
        assert (await front.infer(REQUEST)).code == "OK"
        async with asyncio.timeout(10):
            while front.budget.held:  # the call's end is told to the server after the client
                await front.infer(pb.ModelInferRequest())
