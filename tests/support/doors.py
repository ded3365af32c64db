"""The four ways into a gateway: REST with JSON, REST with binary tensors, gRPC with raw and with typed contents.

Each takes the same `Case` and gives an `Outcome` in one form, so that a test can compare them. Written with `struct`
and `json` alone, apart from protobuf's own classes.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from modelhub.serving.gateway.grpc.generated import open_inference_pb2 as pb

from .gateway_process import Gateway
from .v2_client import CODES, pack, unpack

SERVICE = "/inference.GRPCInferenceService"
#: Size of the largest message that the client side takes.
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
CODE_OF_STATUS = {
    400: "INVALID_ARGUMENT",
    404: "NOT_FOUND",
    413: "RESOURCE_EXHAUSTED",
    415: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
FIELDS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "UINT64": "uint64_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


@dataclass(frozen=True)
class In:
    """One input; `data` flat, BYTES as bytes."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any]
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    model: str
    inputs: list[In]
    version: str = ""
    id: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    #: Names of outputs, or (name, parameters).
    outputs: list[Any] | None = None


@dataclass(frozen=True)
class Out:
    """One output; `data` flat and as its datatype holds it, NaN as "nan"."""

    datatype: str
    shape: list[int]
    data: list[Any]


@dataclass(frozen=True)
class Outcome:
    """`code`: the name of a gRPC code; OK has outputs, in their order, others a message."""

    code: str
    message: str = field(default="", compare=False)
    model: str = ""
    version: str = ""
    id: str = ""
    outputs: list[tuple[str, Out]] = field(default_factory=list)


def rest_json(gateway: Gateway, case: Case) -> Outcome:
    inputs = []
    for each in case.inputs:
        data, parameters = each.data, dict(each.parameters)
        if each.datatype == "BYTES":
            try:
                data = [value.decode() for value in data]
            except UnicodeDecodeError:
                data = [base64.b64encode(value).decode() for value in data]
                parameters["content_type"] = "base64"
        inputs.append({**_head(each), "parameters": parameters, "data": data})
    return _rest(gateway, case, json.dumps(_document(case, inputs)).encode(), {})


def rest_binary(gateway: Gateway, case: Case) -> Outcome:
    inputs, tails = [], []
    for each in case.inputs:
        tails.append(_pack(each))
        inputs.append({**_head(each), "parameters": {**each.parameters, "binary_data_size": len(tails[-1])}})
    document = _document(case, inputs)
    document["parameters"] = {**case.parameters, "binary_data_output": True}
    text = json.dumps(document).encode()
    headers = {"Inference-Header-Content-Length": str(len(text)), "Content-Type": "application/octet-stream"}
    return _rest(gateway, case, b"".join([text, *tails]), headers)


def grpc_raw(gateway: Gateway, case: Case) -> Outcome:
    request = _message(case)
    request.raw_input_contents.extend(_pack(each) for each in case.inputs)
    return _grpc(gateway, request, raw=True)


def grpc_typed(gateway: Gateway, case: Case) -> Outcome:
    request = _message(case)
    for each, tensor in zip(case.inputs, request.inputs, strict=True):
        if each.datatype in FIELDS:
            getattr(tensor.contents, FIELDS[each.datatype]).extend(each.data)
    return _grpc(gateway, request, raw=False)


DOORS: dict[str, Callable[[Gateway, Case], Outcome]] = {
    "rest json": rest_json,
    "rest binary": rest_binary,
    "grpc raw": grpc_raw,
    "grpc typed": grpc_typed,
}


def call(gateway: Gateway, method: str, message: Any, *, timeout: float = 60, **options: Any) -> Any:
    """One gRPC call with a message or bytes; the answer's bytes. Raises grpc.RpcError."""
    data = message if isinstance(message, bytes) else message.SerializeToString()
    with grpc.insecure_channel(gateway.grpc_url, options=OPTIONS) as channel:
        return channel.unary_unary(f"{SERVICE}/{method}")(data, timeout=timeout, **options)


# ---- REST ----------------------------------------------------------------------------------------


def _head(each: In) -> dict[str, Any]:
    return {"name": each.name, "datatype": each.datatype, "shape": each.shape}


def _document(case: Case, inputs: list[dict[str, Any]]) -> dict[str, Any]:
    document: dict[str, Any] = {"inputs": inputs, "parameters": case.parameters}
    if case.id:
        document["id"] = case.id
    if case.outputs is not None:
        document["outputs"] = [
            {"name": each} if isinstance(each, str) else {"name": each[0], "parameters": each[1]}
            for each in case.outputs
        ]
    return document


def _rest(gateway: Gateway, case: Case, body: bytes, headers: dict[str, str]) -> Outcome:
    version = f"/versions/{case.version}" if case.version else ""
    answer = gateway.post(f"/v2/models/{case.model}{version}/infer", body, headers)
    if answer.status != 200:
        assert list(answer.json()) == ["error"], answer
        return Outcome(CODE_OF_STATUS[answer.status], answer.json()["error"])
    size = int(answer.headers.get("inference-header-content-length", len(answer.body)))
    document, rest = json.loads(answer.body[:size]), answer.body[size:]
    outputs = []
    for output in document["outputs"]:
        parameters, datatype = output.get("parameters", {}), output["datatype"]
        if "binary_data_size" in parameters:
            raw, rest = rest[: parameters["binary_data_size"]], rest[parameters["binary_data_size"] :]
            data = unpack(datatype, raw)
        elif datatype == "BYTES":
            decode = base64.b64decode if parameters.get("content_type") == "base64" else str.encode
            data = [decode(each) for each in output["data"]]
        else:
            data = [_narrow(datatype, each) for each in output["data"]]
        outputs.append((output["name"], Out(datatype, output["shape"], _plain(data))))
    assert not rest
    return Outcome("OK", "", document["model_name"], document["model_version"], document.get("id", ""), outputs)


def _narrow(datatype: str, value: Any) -> Any:
    """JSON's number as the datatype holds it."""
    if value is None:
        return float("nan")
    if datatype in ("FP16", "FP32"):
        return struct.unpack(CODES[datatype], struct.pack(CODES[datatype], value))[0]
    return float(value) if datatype in ("FP64", "BF16") else value


def _plain(data: list[Any]) -> list[Any]:
    return ["nan" if each != each else each for each in data]


def _pack(each: In) -> bytes:
    return pack(each.datatype, each.data) if each.datatype in (*CODES, "BYTES", "BF16") else bytes(4)


# ---- gRPC ----------------------------------------------------------------------------------------


def parameter(value: Any) -> pb.InferParameter:
    if isinstance(value, bool):
        return pb.InferParameter(bool_param=value)
    if isinstance(value, int):
        return pb.InferParameter(int64_param=value)
    return pb.InferParameter(double_param=value) if isinstance(value, float) else pb.InferParameter(string_param=value)


def _message(case: Case) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=case.model, model_version=case.version, id=case.id)
    _put(request.parameters, case.parameters)
    for each in case.inputs:
        tensor = request.inputs.add(name=each.name, datatype=each.datatype, shape=each.shape)
        _put(tensor.parameters, each.parameters)
    for name in case.outputs or ():
        output = request.outputs.add(name=name if isinstance(name, str) else name[0])
        _put(output.parameters, {} if isinstance(name, str) else name[1])
    return request


def _put(target: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        target[name].CopyFrom(parameter(value))


def _grpc(gateway: Gateway, request: pb.ModelInferRequest, *, raw: bool) -> Outcome:
    try:
        answer = pb.ModelInferResponse.FromString(call(gateway, "ModelInfer", request))
    except grpc.RpcError as error:
        return Outcome(error.code().name, error.details())
    raws = list(answer.raw_output_contents)
    if not raw:
        assert not raws or any(each.datatype in ("FP16", "BF16") for each in answer.outputs)
    outputs = []
    for position, each in enumerate(answer.outputs):
        if raws:
            assert not each.HasField("contents")
            data = unpack(each.datatype, raws[position])
        else:
            data = list(getattr(each.contents, FIELDS[each.datatype]))
        outputs.append((each.name, Out(each.datatype, list(each.shape), _plain(data))))
    return Outcome("OK", "", answer.model_name, answer.model_version, answer.id, outputs)
