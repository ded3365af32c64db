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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import orjson

from ...config.fields import MAX_NAME
from ...protocol.codec import Body
from ...protocol.errors import InvalidRequest, ServingError
from .generated import open_inference_pb2 as pb
from .message import Parts
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
#: The same of those whose raw contents were found without parsing, and what these say besides.
_texts_of: dict[tuple[Any, ...], bytes] = {}
_requests: dict[bytes, pb.ModelInferRequest] = {}
#: Of answers: by their JSON part.
_heads: dict[bytes, Head] = {}
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


def head_request(head: bytes) -> pb.ModelInferRequest | None:
    """What a message without its raw contents says, if that is kept. Nobody may change it."""
    return _requests.get(head)


def keep_request(head: bytes, request: pb.ModelInferRequest) -> None:
    """For the next time, if it is short and not of one request only."""
    if len(head) <= MAX_KEPT and not request.id:
        _keep(_requests, head, request)


def text_of(parts: Parts, request: pb.ModelInferRequest) -> bytes:
    """The JSON part of a request whose raw contents stay where they are. Raises InvalidRequest."""
    key = (parts.head, *[end - begin for begin, end in parts.spans])
    known = _texts_of.get(key)
    if known is None:
        known, _ = _text(request, [range(begin, end) for begin, end in parts.spans])
        if len(parts.head) <= MAX_KEPT and not request.id:
            _keep(_texts_of, key, known)
    return known


def _text(request: pb.ModelInferRequest, raws: Sequence[Any]) -> tuple[bytes, list[Any]]:
    """The JSON part, and the tensors that follow it; of the raw ones only the lengths are looked at."""
    expected = 0
    inputs: list[dict[str, Any]] = []
    tails: list[Any] = []
    for tensor in request.inputs:
        parameters = _parameters(tensor.parameters)
        shape = list(tensor.shape)
        tail: Any = b""
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
    head = head_of(bytes(body[:json_size])) if raw and json_size is not None else None
    if head is None or not head.fits(body, json_size):
        return to_response(body, json_size, raw=raw).SerializeToString()
    return b"".join(head.before(body, json_size))


class Head(NamedTuple):
    """An answer's message without its raw contents."""

    message: bytes
    #: Of each of these its length, and what precedes it in the message.
    parts: list[tuple[int, bytes]]

    def fits(self, body: Body, at: int | None) -> bool:
        """Whether the tensors from `at` on are as long as they are said to be."""
        return len(body) == (at or 0) + sum(size for size, _ in self.parts)

    def before(self, body: Body, at: int | None) -> list[Body]:
        """The parts of the whole message, which begins `at` in the body; no tensor is copied."""
        found: list[Body] = [self.message]
        view, at = memoryview(body), at or 0
        for size, before in self.parts:
            found += (before, view[at : at + size])
            at += size
        return found


def head_of(text: bytes) -> Head | None:
    """From the JSON part of an answer; None where not every output is binary. Raises ServingError as `to_response`.

    Kept, if it is short and not of one request only.
    """
    known = _heads.get(text)
    if known is not None:
        return known
    response, sizes = pb.ModelInferResponse(), list[int]()
    with _of_v2():
        document = orjson.loads(text)
        outputs = document["outputs"]
        for each in outputs:
            size = each.get("parameters", {}).pop("binary_data_size", None)
            if size is None:
                return None
            sizes.append(size)
        _put_document(response, document)
        for each in outputs:
            _put_output(response, each)
    found = Head(response.SerializeToString(), [(size, _RAW_OUTPUT + varint(size)) for size in sizes])
    if len(text) <= MAX_KEPT and not response.id:
        _keep(_heads, text, found)
    return found


def to_response(body: Body, json_size: int | None, *, raw: bool) -> pb.ModelInferResponse:
    """The worker's answer. Raises ServingError if it is none of V2's."""
    view = memoryview(body)
    text, tail = (view, view[:0]) if json_size is None else (view[:json_size], view[json_size:])
    response = pb.ModelInferResponse()
    with _of_v2():
        document = orjson.loads(text)
        _put_document(response, document)
        outputs = document["outputs"]
        raw = raw or any(each["datatype"] not in FIELDS for each in outputs)
        for each in outputs:
            parameters = each.get("parameters", {})
            size = parameters.pop("binary_data_size", None)
            if size is None:
                value = memoryview(pack_json(each["datatype"], each["data"], parameters))
            else:
                value, tail = tail[:size], tail[size:]
            output = _put_output(response, each)
            if raw:
                response.raw_output_contents.append(bytes(value))
            else:
                unpack(each["datatype"], value, output.contents)
    return response


def _put_document(response: pb.ModelInferResponse, document: Any) -> None:
    response.model_name = document["model_name"]
    response.model_version = document.get("model_version", "")
    response.id = document.get("id", "")
    _put_parameters(response.parameters, document.get("parameters"))


def _put_output(response: pb.ModelInferResponse, given: Any) -> Any:
    output = response.outputs.add(name=given["name"], datatype=given["datatype"], shape=given["shape"])
    _put_parameters(output.parameters, given.get("parameters"))
    return output


@contextmanager
def _of_v2() -> Iterator[None]:
    """What goes wrong in the block goes wrong because the worker's answer is none of V2's."""
    try:
        yield
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
