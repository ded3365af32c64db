"""Several hundred malformed gRPC requests: each ends in a code that blames the client, none in INTERNAL or silence.

No worker is lost. The requests are made from a good one by rules, always alike.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from modelhub.serving.gateway.grpc.generated import open_inference_pb2 as pb
from support.doors import FIELDS, OPTIONS, SERVICE
from support.gateway_process import Gateway
from support.workers_alive import workers

SECONDS = 20.0
BLAMES = {"INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED", "DEADLINE_EXCEEDED"}
METHODS = [method.name for method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods]
UNARY = [name for name in METHODS if name != "ModelStreamInfer"]


def good(model: str = "identity", **members: Any) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=model, id="7", **members)
    request.parameters["priority"].int64_param = 1
    request.inputs.add(name="input-0", datatype="FP32", shape=[2, 2])
    request.outputs.add(name="output-0")
    return request


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
RAW = good(raw_input_contents=[struct.pack("<4f", 1, 2, 3, 4)]).SerializeToString()


class Client:
    """An operator's: it brings the gateway's token, which only some methods ask for."""

    def __init__(self, channel: grpc.Channel, token: str) -> None:
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {token}"),)

    def __call__(self, message: Any, method: str = "ModelInfer", **options: Any) -> str:
        """The name of the code that this message ends in; what fails has a message of its own."""
        data = message if isinstance(message, bytes) else message.SerializeToString()
        try:
            self._channel.unary_unary(f"{SERVICE}/{method}")(
                data, timeout=SECONDS, **{"metadata": self._metadata, **options}
            )
        except grpc.RpcError as failed:
            error = failed
        else:
            return "OK"
        assert error.details()
        assert error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED, "silence"
        return str(error.code().name)


@pytest.fixture(scope="module")
def client(shared_gateway: Gateway) -> Iterator[Client]:
    before = workers(shared_gateway)
    with grpc.insecure_channel(shared_gateway.grpc_url, options=OPTIONS) as channel:
        found = Client(channel, shared_gateway.token)
        assert found(RAW) == "OK"
        yield found
        assert found(RAW) == "OK"
    assert workers(shared_gateway) == before


@pytest.mark.parametrize("method", UNARY)
def test_bytes_that_are_no_message(client: Client, method: str) -> None:
    choose = random.Random(method)
    allowed = {*BLAMES, "OK"}  # a few bytes may be a message, or unknown fields of one
    if method.startswith("RepositoryModel"):
        allowed.remove("OK")
    for _ in range(40):
        assert client(choose.randbytes(choose.randrange(1, 60)), method) in allowed
    assert client(b"\x0a\xff\xff\xff\xff\x0f", method) in ("INVALID_ARGUMENT", "OK")
    assert client(b"\xff" * 100, method) == "INVALID_ARGUMENT"


@pytest.mark.parametrize("method", [name for name in UNARY if name.startswith("RepositoryModel")])
def test_whoever_brings_no_token_is_told_nothing_else(client: Client, method: str) -> None:
    for message in (b"", b"\xff" * 100):
        assert client(message, method, metadata=()) == "UNAUTHENTICATED"


def test_every_truncation(client: Client) -> None:
    for end in range(len(RAW)):
        assert client(RAW[:end]) in BLAMES, end


def test_every_byte_changed(client: Client) -> None:
    choose = random.Random(0)
    for at in range(len(RAW)):
        changed = RAW[:at] + bytes([choose.randrange(256)]) + RAW[at + 1 :]
        assert client(changed) in {*BLAMES, "OK"}, at


def test_text_that_is_none(client: Client) -> None:
    assert client(RAW.replace(b"identity", b"identit\xff")) == "INVALID_ARGUMENT"
    assert client(RAW.replace(b"output-0", b"\xed\xa0\x80put-0")) == "INVALID_ARGUMENT"


@pytest.mark.parametrize("size", [0, 1, 4, 15, 17, 32, 1000])
def test_raw_contents_of_another_length(client: Client, size: int) -> None:
    assert client(good(raw_input_contents=[bytes(size)])) == "INVALID_ARGUMENT"


@pytest.mark.parametrize("count", [0, 2, 3, 100])
def test_another_number_of_raw_contents(client: Client, count: int) -> None:
    assert client(good(raw_input_contents=[bytes(16)] * count)) == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"\0", b"\5\0\0\0", b"\5\0\0\0abcd", b"\5\0\0\0abcdef", b"\xff\xff\xff\xffabc", b"\0\0\0\0\0"),
        *(b"\1\0\0\0a\1\0\0", b"\1\0\0\0a\2\0\0\0b", b"\xff\xff\xff\x7f" + b"a" * 100),
    ],
)
def test_lengths_of_elements_that_lie(client: Client, raw: bytes) -> None:
    for shape in ([1], [2], [0], [2**40]):
        request = pb.ModelInferRequest(model_name="echo", raw_input_contents=[raw])
        request.inputs.add(name="x", datatype="BYTES", shape=shape)
        assert client(request) == "INVALID_ARGUMENT" or (raw, shape) == (b"", [0])


@pytest.mark.parametrize(
    "shape",
    [
        *([-1, 4], [-4, -1], [2**62, 2**62], [2**32, 2**32], [2**63 - 1], [-(2**63)], [1] * 33, [1] * 5000, [0, 2]),
        *([], [4], [2, 3], [1, 1, 4]),
    ],
)
def test_shapes(client: Client, shape: list[int]) -> None:
    for raw in (True, False):
        request = pb.ModelInferRequest(model_name="identity")
        tensor = request.inputs.add(name="input-0", datatype="FP32", shape=shape)
        if raw:
            request.raw_input_contents.append(bytes(16))
        else:
            tensor.contents.fp32_contents.extend([0.0] * 4)
        assert client(request) == "INVALID_ARGUMENT"


@pytest.mark.parametrize("field", sorted(set(FIELDS.values())))
@pytest.mark.parametrize("datatype", [*FIELDS, "FP16", "BF16", "FP8", ""])
def test_elements_in_the_wrong_field(client: Client, datatype: str, field: str) -> None:
    request = pb.ModelInferRequest(model_name="echo")
    tensor = request.inputs.add(name="x", datatype=datatype, shape=[1])
    getattr(tensor.contents, field).append(b"1" if field == "bytes_contents" else 1)
    assert client(request) == ("OK" if FIELDS.get(datatype) == field else "INVALID_ARGUMENT")
    getattr(tensor.contents, "fp64_contents" if field != "fp64_contents" else "bool_contents").append(1)
    assert client(request) == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        *(("INT8", -129), ("INT8", 128), ("INT16", -32769), ("INT16", 2**31 - 1), ("UINT8", 256), ("UINT16", 65536)),
    ],
)
def test_values_beyond_the_datatype(client: Client, datatype: str, value: int) -> None:
    request = pb.ModelInferRequest(model_name="echo")
    tensor = request.inputs.add(name="x", datatype=datatype, shape=[2])
    getattr(tensor.contents, FIELDS[datatype]).extend([0, value])
    assert client(request) == "INVALID_ARGUMENT"


def test_raw_and_typed_contents(client: Client) -> None:
    request = good(raw_input_contents=[bytes(16)])
    request.inputs[0].contents.fp32_contents.extend([0.0] * 4)
    assert client(request) == "INVALID_ARGUMENT"


def test_parameters(client: Client) -> None:
    for name, value in {
        "priority": {},
        "timeout": {"string_param": "soon"},
        "nan": {"double_param": float("nan")},
        "infinite": {"double_param": float("-inf")},
        "": {},
    }.items():
        request = good(raw_input_contents=[bytes(16)])
        request.parameters[name].CopyFrom(pb.InferParameter(**value))
        assert client(request) == "INVALID_ARGUMENT", name
        request = good(raw_input_contents=[bytes(16)])
        request.inputs[0].parameters[name].CopyFrom(pb.InferParameter(**value))
        assert client(request) in ("INVALID_ARGUMENT", "OK"), name


def test_many_of_everything(client: Client) -> None:
    request = good(raw_input_contents=[b""] * 3000)
    for each in range(2999):
        request.inputs.add(name=f"x{each}", datatype="FP32", shape=[0])
    assert client(request) == "INVALID_ARGUMENT"
    request = good(raw_input_contents=[bytes(16)])
    for each in range(5000):
        request.outputs.add(name=f"x{each}")
        request.parameters[f"p{each}"].string_param = "x" * 100
    assert client(request) == "INVALID_ARGUMENT"


def test_a_compressed_bomb(client: Client) -> None:
    bomb = good(raw_input_contents=[bytes(80 << 20)])
    assert client(bomb, compression=grpc.Compression.Gzip) == "RESOURCE_EXHAUSTED"
    assert client(bomb, compression=grpc.Compression.Deflate) == "RESOURCE_EXHAUSTED"


def test_methods_that_are_not_there(client: Client) -> None:
    for method in ("Nothing", "TraceSetting", "CudaSharedMemoryStatus", "\u00fc".encode().hex(), "x" * 1000):
        assert client(b"", method) == "UNIMPLEMENTED"


def test_long_messages_fit_into_the_trailers(client: Client) -> None:
    for text in ("x" * 100_000, "\u2603" * 50_000):
        request = good(raw_input_contents=[bytes(16)])
        request.inputs[0].datatype = text
        assert client(request) == "INVALID_ARGUMENT"
        request.inputs[0].datatype, request.inputs[0].name = "FP32", text
        assert client(request) in ("INVALID_ARGUMENT", "OK")
        request.model_name = text
        assert client(request) == "NOT_FOUND"


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        PREFACE + b"\xff" * 500,
        PREFACE + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]) + bytes([255, 255, 255, 0, 1, 0, 0, 0, 1]),
        random.Random(0).randbytes(5000),
    ],
)  # fmt: skip
def test_raw_sockets_do_not_disturb_others(client: Client, shared_gateway: Gateway, sent: bytes) -> None:
    host, port = shared_gateway.grpc_url.split(":")
    with socket.create_connection((host, int(port)), SECONDS) as connection:
        connection.sendall(sent)
        assert client(RAW) == "OK"
        try:
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
        except OSError:
            pass  # reset: told clearly enough


def test_a_stream_goes_on_after_bad_messages(shared_gateway: Gateway, client: Client) -> None:
    with grpc.insecure_channel(shared_gateway.grpc_url, options=OPTIONS) as channel:
        messages = [
            RAW,
            b"\xff" * 20,
            RAW[:-3],
            b"",
            RAW,
            pb.ModelInferRequest(model_name="nosuch").SerializeToString(),
            RAW,
        ]
        answers = list(channel.stream_stream(f"{SERVICE}/ModelStreamInfer")(iter(messages), timeout=SECONDS))
    parsed = [pb.ModelStreamInferResponse.FromString(each) for each in answers]
    assert [bool(each.error_message) for each in parsed] == [False, True, True, True, False, True, False]
    assert [each.infer_response.id for each in parsed] == ["7", "", "", "", "7", "", "7"]
