"""Tensors of 64 MB: the same bytes by REST binary, gRPC raw and gRPC typed. As JSON they would be over `max_body`."""

from __future__ import annotations

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from modelhub.serving.gateway.grpc.generated import open_inference_pb2 as pb
from support.doors import call
from support.gateway_process import Gateway

ROWS, COLUMNS = 4000, 4000
SIZE = 4 * ROWS * COLUMNS
#: Seconds that a short answer may take while a large tensor is on its way: the event loop is not held up by it.
SHORT = 1.0


@pytest.fixture(scope="module")
def raw() -> bytes:
    """FP32 whose bytes are no NaN: the exponent's upper bit is 0."""
    piece = bytearray(random.Random(0).randbytes(4000))
    piece[3::4] = bytes(each & 0xBF for each in piece[3::4])
    return bytes(piece) * (SIZE // 4000)


def message(**members: object) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="identity", **members)
    request.inputs.add(name="input-0", datatype="FP32", shape=[ROWS, COLUMNS])
    return request


def rest(gateway: Gateway, raw: bytes) -> bytes:
    head = {"name": "input-0", "datatype": "FP32", "shape": [ROWS, COLUMNS], "parameters": {"binary_data_size": SIZE}}
    text = json.dumps({"inputs": [head], "parameters": {"binary_data_output": True}}).encode()
    answer = gateway.post("/v2/models/identity/infer", text + raw, {"Inference-Header-Content-Length": str(len(text))})
    assert answer.status == 200
    return answer.body[int(answer.headers["inference-header-content-length"]) :]


def grpc_raw(gateway: Gateway, raw: bytes) -> bytes:
    answer = pb.ModelInferResponse.FromString(call(gateway, "ModelInfer", message(raw_input_contents=[raw])))
    assert list(answer.outputs[0].shape) == [ROWS, COLUMNS]
    return answer.raw_output_contents[0]


def grpc_typed(gateway: Gateway, raw: bytes) -> bytes:
    """Packed FP32 lie in protobuf as in the binary form, behind a tag and a length."""
    head = b"\x32" + bytes([SIZE & 127 | 128, SIZE >> 7 & 127 | 128, SIZE >> 14 & 127 | 128, SIZE >> 21])
    request = message()
    request.inputs[0].contents.MergeFromString(head + raw)
    answer = pb.ModelInferResponse.FromString(call(gateway, "ModelInfer", request))
    assert not answer.raw_output_contents
    assert len(answer.outputs[0].contents.fp32_contents) == ROWS * COLUMNS
    return answer.outputs[0].contents.SerializeToString()[len(head) :]


@pytest.mark.parametrize("door", [rest, grpc_raw, grpc_typed])
def test_the_same_bytes_come_back_and_others_are_answered_meanwhile(
    shared_gateway: Gateway, raw: bytes, door: object
) -> None:
    assert callable(door)
    waits: list[float] = []
    with ThreadPoolExecutor(1) as thread:
        pending = thread.submit(door, shared_gateway, raw)
        while not pending.done():
            started = time.monotonic()
            assert shared_gateway.get("/v2/health/live").status == 200
            waits.append(time.monotonic() - started)
    assert pending.result() == raw
    assert max(waits) < SHORT


def test_one_over_the_limit(shared_gateway: Gateway, raw: bytes) -> None:
    import grpc

    too_much = raw + raw[: 8 << 20]
    assert shared_gateway.post("/v2/models/identity/infer", too_much).status == 413
    with pytest.raises(grpc.RpcError) as failed:
        grpc_raw(shared_gateway, too_much)
    assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
