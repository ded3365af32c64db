"""Raw tensors that are found in a message without parsing it: the same as protobuf finds, for any bytes."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from modelhub.serving.gateway.grpc.codec import text_of, to_wire
from modelhub.serving.gateway.grpc.generated import open_inference_pb2 as pb
from modelhub.serving.gateway.grpc.message import GAP, Message, body_of, split


@st.composite
def requests(draw: Any) -> pb.ModelInferRequest:
    raws = draw(st.lists(st.binary(max_size=300), min_size=1, max_size=4))
    request = pb.ModelInferRequest(
        model_name=draw(st.text(max_size=5)), id=draw(st.text(max_size=3)), raw_input_contents=raws
    )
    for number, raw in enumerate(raws):
        request.inputs.add(name=f"x{number}", datatype="UINT8", shape=[len(raw)])
    if draw(st.booleans()):
        request.parameters["priority"].int64_param = draw(st.integers(-(2**63), 2**63 - 1))
    return request


def received(data: bytes, large: bool) -> Message:
    return Message(bytearray(GAP) + data, GAP) if large else Message(b"\0\0\0\0\0" + data, 5)


@given(requests(), st.booleans())
def test_the_same_body_as_by_parsing(request: pb.ModelInferRequest, large: bool) -> None:
    data = request.SerializeToString()
    message = received(data, large)
    parts = split(message)
    assert parts is not None
    rest = pb.ModelInferRequest.FromString(parts.head)
    body, size = body_of(message, text_of(parts, rest), parts.spans)
    assert (bytes(body), size) == to_wire(pb.ModelInferRequest.FromString(data))


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_what_protobuf_takes_them_for(data: bytes, large: bool) -> None:
    message = received(data, large)
    parts = split(message)
    if parts is None:
        return  # protobuf is asked
    raws = [bytes(message.data[begin:end]) for begin, end in parts.spans]
    try:
        whole = pb.ModelInferRequest.FromString(data)
    except DecodeError:
        whole = None
    try:
        rest = pb.ModelInferRequest.FromString(parts.head)
    except DecodeError:
        rest = None
    assert (whole is None) == (rest is None)
    if whole is not None and rest is not None:
        rest.raw_input_contents.extend(raws)
        assert rest == whole


@given(requests(), st.data())
def test_what_has_come_of_a_message_says_what_it_can(request: pb.ModelInferRequest, choose: Any) -> None:
    data = request.SerializeToString()
    start = data[: choose.draw(st.integers(0, len(data)))]
    parts = split(received(start, False), whole=False)
    assert parts is not None
    found = pb.ModelInferRequest.FromString(parts.head)
    assert found.model_name in (request.model_name, "")
    named = pb.ModelInferRequest(model_name=request.model_name).ByteSize()
    assert found.model_name == request.model_name or len(start) < named
