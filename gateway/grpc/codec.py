"""A gRPC infer request to the form in which REST sends it with binary tensors, and the worker's answer back.

So a worker knows one form of requests. Answers are always asked for as binary; they become raw contents when the
request's tensors were raw, typed contents when they were typed (raw all the same where an output is FP16 or BF16,
which have none). Called by `inference.py`, for large messages in a thread.

What stands beside raw contents is the same in most requests to a model, and in its answers: names, types and shapes.
Translating it costs several times what the rest of a small request does, so the last translations are kept.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from typing import Any, TypeVar

import orjson

from ...config.fields import MAX_NAME
from ...protocol.codec import Body
from ...protocol.errors import InvalidRequest, ServingError
from .generated import open_inference_pb2 as pb
from .tensors import AS_THEY_ARE, FIELDS, pack, pack_json, unpack, varint

#: Parameters with which REST asks for binary tensors: here the message's own form decides.
_OF_REST = frozenset({"binary_data", "binary_data_size", "binary_data_output"})
_INT64 = range(-(1 << 63), 1 << 63)
_UINT64 = range(1 << 64)


#: Translations that are kept of each kind, and bytes of what is translated.
KEPT, MAX_KEPT = 512, 1024
#: So many tensors, dimensions and parameters are few.
FEW = 64
#: Of requests: the message without raw contents, and their lengths -> the JSON part.
_texts: dict[tuple[bytes, ...], bytes] = {}
#: Of answers: the JSON part -> the message without raw contents, and for each of these (length, what precedes it).
_heads: dict[bytes, tuple[bytes, list[tuple[int, bytes]]]] = {}
_RAW_OUTPUT = bytes([pb.ModelInferResponse.DESCRIPTOR.fields_by_name["raw_output_contents"].number << 3 | 2])

K = TypeVar("K")
V = TypeVar("V")


def _keep(kept: dict[K, V], key: K, value: V) -> None:
    if len(kept) >= KEPT:
        kept.clear()
    kept[key] = value


def to_wire(request: pb.ModelInferRequest) -> tuple[bytes, int]:
    """(body, length of its JSON part) of the V2 binary form. Takes its raw contents out. Raises InvalidRequest."""
    if not request.raw_input_contents:
        text, tails = _text(request, [])
        return b"".join([text, *tails]), len(text)
    raws = list(request.raw_input_contents)
    request.ClearField("raw_input_contents")
    head = request.SerializeToString()
    key = (head, array("Q", map(len, raws)).tobytes())
    known = _texts.get(key)
    if known is None:
        known, _ = _text(request, raws)
        if len(head) <= MAX_KEPT and not request.id:
            _keep(_texts, key, known)
    return b"".join([known, *raws]), len(known)


def _text(request: pb.ModelInferRequest, raws: list[bytes]) -> tuple[bytes, list[Body]]:
    """The JSON part, and the tensors that follow it."""
    expected = 0
    inputs: list[dict[str, Any]] = []
    tails: list[Body] = []
    for tensor in request.inputs:
        parameters = _parameters(tensor.parameters)
        shape = list(tensor.shape)
        tail: Body = b""
        if raws:
            if tensor.HasField("contents"):
                raise InvalidRequest(
                    f"the input {tensor.name[:MAX_NAME]!r} has contents beside raw_input_contents: send one of them"
                )
            if "shared_memory_region" not in parameters:
                if expected < len(raws):
                    tail = raws[expected]
                expected += 1
        elif "shared_memory_region" not in parameters:
            tail = pack(tensor.name, tensor.datatype, shape, tensor.contents)
        parameters["binary_data_size"] = len(tail)
        inputs.append({"name": tensor.name, "datatype": tensor.datatype, "shape": shape, "parameters": parameters})
        tails.append(tail)
    if raws and expected != len(raws):
        raise InvalidRequest(
            f"there are {expected} inputs, but {len(raws)} raw_input_contents: send one for each input"
        )
    document: dict[str, Any] = {
        "parameters": {**_parameters(request.parameters), "binary_data_output": True},
        "inputs": inputs,
    }
    if request.id:
        document["id"] = request.id
    if request.outputs:
        document["outputs"] = [
            {"name": each.name, "parameters": _parameters(each.parameters)} if each.parameters else {"name": each.name}
            for each in request.outputs
        ]
    return orjson.dumps(document), tails


def is_raw(request: pb.ModelInferRequest) -> bool:
    """Do the request's tensors come as raw contents?"""
    return len(request.raw_input_contents) > 0


def is_simple(request: pb.ModelInferRequest) -> bool:
    """Whether its few tensors have few dimensions and parameters, and elements that are not touched one by one."""
    if len(request.inputs) > FEW or len(request.outputs) > FEW or len(request.parameters) > FEW:
        return False
    return all(
        len(each.shape) <= FEW
        and len(each.parameters) <= FEW
        and (each.datatype in AS_THEY_ARE or not each.HasField("contents"))
        for each in request.inputs
    )


def respond(body: Body, json_size: int | None, *, raw: bool) -> bytes:
    """The worker's answer as a serialized ModelInferResponse. Raises ServingError if it is none of V2's."""
    if not raw or json_size is None or json_size > MAX_KEPT:
        return to_response(body, json_size, raw=raw).SerializeToString()
    text = bytes(body[:json_size])
    known = _heads.get(text)
    if known is None:
        response = to_response(body, json_size, raw=True)
        parts = [(len(each), _RAW_OUTPUT + varint(len(each))) for each in response.raw_output_contents]
        message = response.SerializeToString()
        response.ClearField("raw_output_contents")
        if not response.id:
            _keep(_heads, text, (response.SerializeToString(), parts))
        return message
    head, parts = known
    found: list[Body] = [head]
    at = json_size
    for size, before in parts:
        found += (before, body[at : at + size])
        at += size
    return b"".join(found)


def to_response(body: Body, json_size: int | None, *, raw: bool) -> pb.ModelInferResponse:
    """The worker's answer. Raises ServingError if it is none of V2's."""
    view = memoryview(body)
    text, tail = (view, view[:0]) if json_size is None else (view[:json_size], view[json_size:])
    try:
        document = orjson.loads(text)
        response = pb.ModelInferResponse(
            model_name=document["model_name"],
            model_version=document.get("model_version", ""),
            id=document.get("id", ""),
        )
        _put_parameters(response.parameters, document.get("parameters"))
        outputs = document["outputs"]
        raw = raw or any(each["datatype"] not in FIELDS for each in outputs)
        for each in outputs:
            parameters = each.get("parameters", {})
            size = parameters.pop("binary_data_size", None)
            if size is None:
                value = memoryview(pack_json(each["datatype"], each["data"], parameters))
            else:
                value, tail = tail[:size], tail[size:]
            output = response.outputs.add(name=each["name"], datatype=each["datatype"], shape=each["shape"])
            _put_parameters(output.parameters, parameters)
            if raw:
                response.raw_output_contents.append(bytes(value))
            else:
                unpack(each["datatype"], value, output.contents)
        return response
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, ServingError):
            raise
        raise ServingError(
            f"the model answered with something that gRPC cannot carry: {type(error).__name__}"
        ) from None


def _parameters(given: Mapping[str, pb.InferParameter]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, parameter in given.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is None:
            raise InvalidRequest(f"the parameter {name[:MAX_NAME]!r} has no value")
        value = getattr(parameter, choice)
        if choice == "double_param" and not math.isfinite(value):
            raise InvalidRequest(f"the parameter {name[:MAX_NAME]!r} is {value}: a parameter must be a finite number")
        if name not in _OF_REST:
            found[name] = value
    return found


def _put_parameters(target: Any, values: dict[str, Any] | None) -> None:
    for name, value in (values or {}).items():
        if isinstance(value, bool):
            target[name].bool_param = value
        elif isinstance(value, int) and value in _INT64:
            target[name].int64_param = value
        elif isinstance(value, int) and value in _UINT64:
            target[name].uint64_param = value
        elif isinstance(value, (int, float)):
            target[name].double_param = value
        else:
            target[name].string_param = value if isinstance(value, str) else orjson.dumps(value).decode()
