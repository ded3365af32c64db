"""Requests whose version is replaced after they have named their model, and before it gets them."""

from __future__ import annotations

import threading

import pytest

from modelhub.serving.gateway.grpc import inference
from modelhub.serving.gateway.grpc.call import LARGE
from modelhub.serving.gateway.grpc.generated import open_inference_pb2 as pb
from modelhub.serving.protocol.codec import Body
from modelhub.serving.protocol.messages import InferReply, InferRequest
from support.grpc_front import answer_body, grpc_serving
from support.http_front import Model, read_answer, serving, to_bytes

#: The version that the client names, the version that takes over, and whether it answers.
CASES = [("", "2", True), ("1", "2", False), ("1", "1", True)]


async def in_binary(request: InferRequest, body: Body) -> tuple[InferReply, Body]:
    output, json_size = answer_body()
    return InferReply(request.id, json_size=json_size), output


def taken_over_by(old: Model, version: str) -> Model:
    new = Model(version=version, answering=old.answering)
    new.wants_headers = True
    old.successor, old.retired, old.serves = new, True, False
    return new


@pytest.mark.parametrize(("named", "version", "follows"), CASES)
async def test_while_the_body_arrives(named: str, version: str, follows: bool) -> None:
    old = Model()
    path = f"/v2/models/iris/versions/{named}/infer" if named else "/v2/models/iris/infer"
    async with serving(old) as front, front.connection() as (reader, writer):
        head, _, body = to_bytes("POST", path, b'{"inputs": []}', {"Expect": "100-continue"}).partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        assert b" 100 " in await reader.readuntil(b"\r\n\r\n")  # the handler has begun
        new = taken_over_by(old, version)
        writer.write(body)
        assert (await read_answer(reader)).body == body
    assert (len(old.asked), len(new.asked)) == (not follows, follows)
    if follows:
        assert new.asked[0][0].headers["host"] == "localhost"


@pytest.mark.parametrize(("named", "version", "follows"), CASES)
async def test_while_a_large_grpc_message_is_converted(
    named: str, version: str, follows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = Model(answering=in_binary), Model(version=version)

    def converted(request: pb.ModelInferRequest) -> tuple[bytes, int]:
        nonlocal new
        assert threading.current_thread() is not threading.main_thread()
        new = taken_over_by(old, version)
        return to_wire(request)

    to_wire = inference.to_wire
    monkeypatch.setattr(inference, "to_wire", converted)
    request = pb.ModelInferRequest(model_name="iris", model_version=named)
    tensor = request.inputs.add(name="x", datatype="BOOL", shape=[LARGE])
    tensor.contents.bool_contents.extend([True] * LARGE)  # raw contents are not converted at all
    async with grpc_serving(old) as front:
        assert (await front.infer(request, of_mine="1")).code == "OK"
    assert (len(old.asked), len(new.asked)) == (not follows, follows)
    if follows:
        assert new.asked[0][0].headers["of-mine"] == "1"
    assert (old.stats.succeeded, new.stats.succeeded) == (not follows, follows)
