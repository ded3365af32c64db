"""gRPC messages to the V2 binary form and back, read by the protocol's own parser."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from modelhub.serving.gateway.grpc import codec
from modelhub.serving.gateway.grpc.codec import is_raw, respond, to_response, to_wire
from modelhub.serving.gateway.grpc.generated import open_inference_pb2 as pb
from modelhub.serving.protocol.errors import InvalidRequest, NotSupported, ServingError
from modelhub.serving.protocol.v2 import OutputTensor, build_response, parse_request
from support.doors import FIELDS
from support.v2_client import CODES, Tensor, pack

RANGES = {
    **{f"UINT{bits}": st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    "BOOL": st.booleans(),
    "FP16": st.floats(width=16),
    "FP32": st.floats(width=32),
    "FP64": st.floats(),
    "BYTES": st.binary(max_size=300),
}


@st.composite
def tensors(draw: Any) -> Tensor:
    datatype = draw(st.sampled_from(sorted(RANGES)))
    data = draw(st.lists(RANGES[datatype], max_size=40))
    return Tensor(datatype, [len(data)], data)


def message(tensor: Tensor, *, raw: bool) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="m", id="7")
    given_ = request.inputs.add(name="x", datatype=tensor.datatype, shape=tensor.shape)
    if raw:
        request.raw_input_contents.append(pack(tensor.datatype, tensor.data))
    else:
        getattr(given_.contents, FIELDS[tensor.datatype]).extend(tensor.data)
    return request


@given(tensors(), st.booleans())
def test_requests_become_the_binary_form(tensor: Tensor, raw: bool) -> None:
    raw = raw or tensor.datatype == "FP16"
    request = pb.ModelInferRequest.FromString(message(tensor, raw=raw).SerializeToString())
    assert is_raw(request) is raw
    body, size = to_wire(request)
    parsed = parse_request(body, size)
    [found] = parsed.inputs
    assert (found.name, found.datatype, found.shape, parsed.id) == ("x", tensor.datatype, tensor.shape, "7")
    assert bytes(found.raw or b"") == pack(tensor.datatype, tensor.data)
    assert parsed.wants_binary(None)


@given(st.lists(tensors(), max_size=4), st.booleans())
def test_answers_become_messages(outputs: list[Tensor], raw: bool) -> None:
    rows = [
        OutputTensor(f"y{at}", each.datatype, each.shape, raw=pack(each.datatype, each.data))
        for at, each in enumerate(outputs)
    ]
    body, size = build_response("m", rows, model_version="3", request_id="7")
    response = pb.ModelInferResponse.FromString(to_response(body, size, raw=raw).SerializeToString())
    assert (response.model_name, response.model_version, response.id) == ("m", "3", "7")
    raw = raw or any(each.datatype == "FP16" for each in outputs)
    for at, (found, each) in enumerate(zip(response.outputs, outputs, strict=True)):
        assert (found.name, found.datatype, list(found.shape)) == (f"y{at}", each.datatype, each.shape)
        if raw:
            assert response.raw_output_contents[at] == pack(each.datatype, each.data)
        else:
            assert pack(each.datatype, list(getattr(found.contents, FIELDS[each.datatype]))) == pack(
                each.datatype, each.data
            )


@given(st.lists(tensors(), min_size=1, max_size=4))
def test_what_was_translated_before_gives_the_same_again(given_: list[Tensor]) -> None:
    messages = [message(each, raw=True) for each in given_]
    for request in messages:
        request.id = ""
    fresh = []
    for request in messages:
        codec._texts.clear()
        fresh.append(to_wire(pb.ModelInferRequest.FromString(request.SerializeToString())))
    for _ in range(2):
        assert [to_wire(pb.ModelInferRequest.FromString(each.SerializeToString())) for each in messages] == fresh
    for each in given_:
        raw = pack(each.datatype, each.data)
        body, size = build_response("m", [OutputTensor("y", each.datatype, each.shape, raw=raw)], model_version="3")
        expected = to_response(body, size, raw=True)
        for _ in range(2):
            assert pb.ModelInferResponse.FromString(respond(body, size, raw=True)) == expected


def test_few_translations_are_kept_and_none_with_an_id() -> None:
    codec._texts.clear()
    codec._heads.clear()
    for number in range(2 * codec.KEPT + 10):
        request = message(Tensor("FP32", [1], [1.0]), raw=True)
        request.id = "" if number % 2 else "q"
        request.inputs[0].name = f"x{number}"
        to_wire(request)
        identity = "q" if number % 2 else None
        body, size = build_response(f"m{number}", [OutputTensor("y", "FP32", [0], raw=b"")], request_id=identity)
        respond(body, size, raw=True)
        assert len(codec._texts) <= codec.KEPT
        assert len(codec._heads) <= codec.KEPT
    assert (len(codec._texts), len(codec._heads)) == (5, 5)
    large = message(Tensor("FP32", [1], [1.0]), raw=True)
    large.id, large.inputs[0].name = "", "x" * codec.MAX_KEPT
    to_wire(large)
    assert len(codec._texts) == 5


@given(st.binary(max_size=400))
def test_any_message_is_converted_or_refused(data: bytes) -> None:
    request = pb.ModelInferRequest()
    with suppress(DecodeError, InvalidRequest, NotSupported):
        request.MergeFromString(data)
        body, size = to_wire(request)
        parse_request(body, size)


def test_parameters_of_every_kind_and_those_of_rest_left_out() -> None:
    request = message(Tensor("FP32", [1], [1.0]), raw=True)
    for owner in (request, request.inputs[0]):
        owner.parameters["flag"].bool_param = True
        owner.parameters["number"].int64_param = -5
        owner.parameters["text"].string_param = "é"
        owner.parameters["ratio"].double_param = 0.5
        owner.parameters["large"].uint64_param = 2**64 - 1
        owner.parameters["binary_data_size"].int64_param = 3
        owner.parameters["binary_data_output"].bool_param = False
    request.outputs.add(name="y").parameters["binary_data"].bool_param = False
    body, size = to_wire(request)
    document = json.loads(body[:size])
    expected = {"flag": True, "number": -5, "text": "é", "ratio": 0.5, "large": 2**64 - 1}
    assert document["parameters"] == {**expected, "binary_data_output": True}
    assert document["inputs"][0]["parameters"] == {**expected, "binary_data_size": 4}
    assert document["outputs"] == [{"name": "y", "parameters": {}}]


@pytest.mark.parametrize("datatype", [*CODES, "BF16", "BYTES"])
def test_a_json_answer_is_carried_too(datatype: str) -> None:
    """A service may answer with JSON although it was asked for binary."""
    data = {"BYTES": ["a", "é"], "BOOL": [True, False]}.get(datatype, [1, 2])
    output = {"name": "y", "datatype": datatype, "shape": [1, 2], "data": [data]}
    body = json.dumps({"model_name": "m", "outputs": [output]}).encode()
    response = to_response(body, None, raw=True)
    packed = [each.encode() if isinstance(each, str) else each for each in data]
    assert list(response.raw_output_contents) == [pack(datatype, packed)]
    assert not to_response(body, None, raw=False).raw_output_contents or datatype in ("FP16", "BF16")


def test_a_nan_in_a_json_answer() -> None:
    output = {"name": "y", "datatype": "FP32", "shape": [1], "data": [None]}
    body = json.dumps({"model_name": "m", "outputs": [output]}).encode()
    (value,) = struct.unpack("<f", to_response(body, None, raw=True).raw_output_contents[0])
    assert value != value


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"statusCode":200,"data":1}',
        b'{"model_name":"m","outputs":[{}]}',
        b'{"model_name":"m","outputs":[{"name":"y","datatype":"FP32","shape":["x"],"data":[1]}]}',
        b'{"model_name":"m","outputs":[{"name":"y","datatype":"INT8","shape":[1],"data":[1000]}]}',
        b'{"model_name":"m","outputs":[{"name":"y","datatype":"FP99","shape":[1],"data":[1]}]}',
    ],
)
def test_answers_that_are_none_of_v2s(body: bytes) -> None:
    with pytest.raises(ServingError, match="answer"):
        to_response(body, None, raw=True)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_parameters_that_json_cannot_say(value: float) -> None:
    request = message(Tensor("BOOL", [1], [True]), raw=False)
    request.parameters["factor"].double_param = value
    with pytest.raises(InvalidRequest, match=r"'factor' is .*finite"):
        to_wire(request)


def test_parameters_of_answers() -> None:
    body = json.dumps(
        {"model_name": "m", "parameters": {"a": True, "b": 2**63, "c": 0.5, "d": "é", "e": [1]}, "outputs": []}
    ).encode()
    found = to_response(body, None, raw=True).parameters
    kinds = {name: value.WhichOneof("parameter_choice") for name, value in found.items()}
    assert kinds == {
        "a": "bool_param",
        "b": "uint64_param",
        "c": "double_param",
        "d": "string_param",
        "e": "string_param",
    }
