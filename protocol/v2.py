"""V2 infer requests and responses, REST form, with the binary tensor extension.

    body = JSON                                            header absent
    body = JSON (json_size bytes) | tensor | tensor | …    the tensors in the order of the inputs that
                                                           carry parameters.binary_data_size
    body = tensor of the single input                      json_size 0, "raw request"

`json_size` is the value of `Inference-Header-Content-Length`; of a compressed body it counts bytes of
the inflated one (as Triton's client does). Called by the worker for every request; the gateway never
parses a body. Whatever is wrong with one is the client's mistake: InvalidRequest. Tensors' elements
are judged where numpy is (`workers/convert/tensors.py`).

`null` counts as absent, in place of optional members and of parameters (pydantic-made clients send it so). Members
that nobody would read are refused.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass, field
from typing import AbstractSet, Any, Dict, Iterable, List, Optional, Sequence, Tuple, Union

import orjson

from . import json_text
from .datatypes import DATATYPES, datatype
from .errors import InvalidRequest, NotSupported, UnsupportedMediaType

Body = Union[bytes, bytearray, memoryview]

JSON_TYPE = "application/json"
BINARY_TYPE = "application/octet-stream"

#: numpy 1 has 32 dimensions at most.
MAX_DIMENSIONS = 32
#: Dimensions and their product, those of size 0 left out: what numpy can address on 64 bits.
MAX_ELEMENTS = 1 << 48

#: Members of a request, of an input and of an output that it asks for. The model's name is in the path already.
_MEMBERS = frozenset({"id", "parameters", "inputs", "outputs", "model_name", "model_version"})
_INPUT_MEMBERS = frozenset({"name", "shape", "datatype", "parameters", "data"})
_OUTPUT_MEMBERS = frozenset({"name", "parameters"})

_DUMP_OPTIONS = orjson.OPT_SERIALIZE_NUMPY
_NO_TAIL = memoryview(b"")


@dataclass
class InferInput:
    """One input tensor: `data` (JSON, nested or flat) or `raw` (binary), never both."""

    name: str
    shape: List[int]
    datatype: str
    parameters: Dict[str, Any] = field(default_factory=dict)
    data: Optional[List[Any]] = None
    raw: Optional[memoryview] = None


@dataclass
class RequestedOutput:
    """An output that the client asks for. `binary`: None where it does not say."""

    name: str
    parameters: Dict[str, Any] = field(default_factory=dict)

    @property
    def binary(self) -> Optional[bool]:
        return self.parameters.get("binary_data")


@dataclass
class V2Request:
    """A parsed infer request. `outputs` None: all of them."""

    inputs: List[InferInput]
    id: Optional[str] = None
    parameters: Dict[str, Any] = field(default_factory=dict)
    outputs: Optional[List[RequestedOutput]] = None

    def wants_binary(self, output: Optional[RequestedOutput]) -> bool:
        """Shall this output go back as binary? Its own `binary_data` wins over `binary_data_output`."""
        if output is not None and output.binary is not None:
            return output.binary
        return bool(self.parameters.get("binary_data_output", False))


@dataclass
class OutputTensor:
    """One output of a response, row-major: `data` a flat list or contiguous numpy array, or `raw` its bytes."""

    name: str
    datatype: str
    shape: Sequence[int]
    data: Any = None
    raw: Optional[Body] = None
    parameters: Dict[str, Any] = field(default_factory=dict)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name: the nearest known one, or all of them."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    listed = ", ".join(repr(each) for each in names[:20]) + (", …" if len(names) > 20 else "")
    return f"there is {listed}" if names else "there are none"


def check_members(document: Dict[str, Any], known: AbstractSet[str], owner: str, hint: str = "") -> None:
    """Nothing is dropped in silence: refuses the first member that is not known, unless it is null.

    `hint`: what to do with a member that is like no known one.
    """
    if document.keys() <= known:
        return
    for name, value in document.items():
        if name not in known and value is not None:
            near = difflib.get_close_matches(name, known, n=1)
            advice = did_you_mean(name, near or sorted(known)) if near or not hint else hint
            raise InvalidRequest(f"{owner} has the field {name[:60]!r}, which nothing reads: {advice}")


def begins_object(body: Body) -> bool:
    """Does this body begin as a JSON object does?"""
    return bytes(body[:16]).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{"


def check_content_type(content_type: str, json_size: Optional[int], body: Body) -> None:
    """Is this a media type of an infer request? Raises UnsupportedMediaType.

    With a `json_size` any type is (the header marks a binary body, not the type). JSON types are, and
    none at all. `application/x-www-form-urlencoded` is when the body starts with `{`: curl sends that
    type unless told otherwise.
    """
    if json_size is not None or not content_type:
        return
    media, _, rest = content_type.partition(";")
    media = media.strip().lower()
    if media.startswith("application/cloudevents"):
        raise UnsupportedMediaType(
            f"{media} is a CloudEvent in structured mode, which is not unwrapped: send its data alone, as {JSON_TYPE} "
            "(in binary mode its attributes are headers)"
        )
    if media in ("application/json", "text/json") or (media.startswith("application/") and media.endswith("+json")):
        charset = re.search(r"charset\s*=\s*\"?([^\s;\"]+)", rest, re.IGNORECASE)
        if charset and charset.group(1).lower() not in ("utf-8", "utf8", "us-ascii"):
            raise UnsupportedMediaType(f"JSON must be UTF-8, not {charset.group(1)}")
        return
    if media == "application/x-www-form-urlencoded" and begins_object(body):
        return
    if media == BINARY_TYPE:
        raise UnsupportedMediaType(
            f"{BINARY_TYPE} needs the header Inference-Header-Content-Length: the length of the JSON part, or 0"
        )
    raise UnsupportedMediaType(f"{media} is not a media type of an infer request: send {JSON_TYPE}")


def parse_request(
    body: Body, json_size: Optional[int] = None, model_inputs: Sequence[Dict[str, Any]] = (), *, bare: bool = False
) -> V2Request:
    """A request's inflated body to its parts; binary tensors are views of it.

    `model_inputs` are the model's metadata inputs, which a raw request (json_size 0) needs. `bare`: the model has none,
    and a request may have none.
    Raises InvalidRequest; NotSupported for shared memory and classification.
    """
    view = memoryview(body)
    if json_size is None:
        return parse_document(load_json(body), bare=bare)
    if json_size < 0 or json_size > len(view):
        raise InvalidRequest(
            f"Inference-Header-Content-Length is {json_size}, but the body has {len(view)} bytes (after decompression)"
        )
    if json_size == 0:
        return _raw_request(view, model_inputs)
    return parse_document(load_json(view[:json_size]), view[json_size:], has_tail=True, bare=bare)


def load_json(text: Body) -> Any:
    """What a body of JSON says. Raises InvalidRequest."""
    if not len(text):
        raise InvalidRequest("the body is empty: send a V2 infer request as JSON")
    return json_text.load(text)


def parse_document(
    document: Any, tail: memoryview = _NO_TAIL, *, has_tail: bool = False, is_open: bool = False, bare: bool = False
) -> V2Request:
    """A request's parsed JSON (and the binary tensors that follow it) to its parts; as `parse_request`.

    `is_open`: somebody else reads it too (a service), whatever members it has.
    """
    if not isinstance(document, dict):
        raise InvalidRequest('the body must be a JSON object with the member "inputs"')
    if not is_open:
        check_members(document, _MEMBERS, "the request", 'the model\'s own parameters go into "parameters"')
    request_id = document.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise InvalidRequest("id must be a string")
    parameters = _parameters(document.get("parameters"), "the request")
    if parameters and not isinstance(parameters.get("binary_data_output", False), bool):
        raise InvalidRequest("the parameter binary_data_output must be true or false")
    items = document.get("inputs")
    if not isinstance(items, list) or not (items or bare):
        raise InvalidRequest('"inputs" must be a list with at least one tensor')
    inputs: List[InferInput] = []
    seen = set()
    used = 0
    for position, item in enumerate(items):
        tensor = _input(item, position, tail, used, has_tail)
        if not is_open:
            check_members(item, _INPUT_MEMBERS, f"the input {tensor.name!r}")
        if tensor.name in seen:
            raise InvalidRequest(f"the input {tensor.name!r} is given twice")
        seen.add(tensor.name)
        inputs.append(tensor)
        if tensor.raw is not None:
            used += len(tensor.raw)
    if used != len(tail):
        raise InvalidRequest(
            f"{len(tail)} bytes follow the JSON part, but the inputs' binary_data_size add up to {used}"
        )
    return V2Request(inputs, request_id, parameters, _outputs(document.get("outputs"), is_open))


def _parameters(value: Any, owner: str) -> Dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest(f"the parameters of {owner} must be an object")
    missing = False
    for key, each in value.items():
        if each is None:
            missing = True
        elif not isinstance(each, (str, int, float)):
            raise InvalidRequest(f"the parameter {key!r} of {owner} must be a string, a number, true or false")
    return {key: each for key, each in value.items() if each is not None} if missing else value


def _name(item: Any, what: str, position: int) -> str:
    if not isinstance(item, dict):
        raise InvalidRequest(f"{what}[{position}] must be an object")
    name = item.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidRequest(f'{what}[{position}] must have a "name"')
    return name


def _no_shared_memory(parameters: Dict[str, Any], owner: str) -> None:
    if "shared_memory_region" in parameters:
        raise NotSupported(f"{owner} is in shared memory, which is not supported: send the tensor in the body")


def _input(item: Any, position: int, tail: memoryview, used: int, has_tail: bool) -> InferInput:
    name = _name(item, "inputs", position)
    owner = f"the input {name!r}"
    type_name = item.get("datatype")
    if not isinstance(type_name, str):
        raise InvalidRequest(f'{owner} must have a "datatype"')
    row = DATATYPES.get(type_name) or datatype(type_name)
    shape = item.get("shape")
    elements = _check_shape(shape, owner)
    parameters = _parameters(item.get("parameters"), owner)
    if parameters:
        _no_shared_memory(parameters, owner)
    length = parameters.get("binary_data_size")
    if length is None:
        data = item.get("data")
        if not isinstance(data, list):
            if "data" not in item:
                raise InvalidRequest(f'{owner} must have "data", or the parameter binary_data_size')
            if shape or data is None or isinstance(data, dict):
                raise InvalidRequest(f"the data of {owner} must be a list")
            data = [data]
        return InferInput(name, shape, type_name, parameters, data)
    if isinstance(length, bool) or not isinstance(length, int) or length < 0:
        raise InvalidRequest(f"binary_data_size of {owner} must be a number of bytes, not negative")
    if "data" in item:
        raise InvalidRequest(f"{owner} has both data and binary_data_size: send one of them")
    if not has_tail:
        raise InvalidRequest(f"{owner} has binary_data_size, but the header Inference-Header-Content-Length is missing")
    if length > len(tail) - used:
        raise InvalidRequest(f"{owner} has binary_data_size {length}, but only {len(tail) - used} bytes are left")
    if row.size and length != elements * row.size:
        raise InvalidRequest(
            f"{owner} has binary_data_size {length}, but shape {shape} of {type_name} takes {elements * row.size} bytes"
        )
    return InferInput(name, shape, type_name, parameters, None, tail[used : used + length])


def _check_shape(shape: Any, owner: str) -> int:
    """The number of elements of `shape`."""
    if not isinstance(shape, list):
        raise InvalidRequest(f'{owner} must have a "shape": a list of numbers')
    if len(shape) > MAX_DIMENSIONS:
        raise InvalidRequest(f"{owner} has {len(shape)} dimensions: at most {MAX_DIMENSIONS} are possible")
    for size in shape:
        if type(size) is not int or size < 0:
            raise InvalidRequest(f"the shape of {owner} must hold whole numbers, not negative, without -1")
    elements = math.prod(shape)
    if elements > MAX_ELEMENTS or (not elements and math.prod(filter(None, shape)) > MAX_ELEMENTS):
        raise InvalidRequest(f"the shape of {owner} has too many elements")
    return elements


def _outputs(items: Any, is_open: bool) -> Optional[List[RequestedOutput]]:
    if items is None:
        return None
    if not isinstance(items, list):
        raise InvalidRequest('"outputs" must be a list')
    found: List[RequestedOutput] = []
    seen = set()
    for position, item in enumerate(items):
        name = _name(item, "outputs", position)
        owner = f"the output {name!r}"
        if name in seen:
            raise InvalidRequest(f"{owner} is asked for twice")
        seen.add(name)
        if not is_open:
            check_members(item, _OUTPUT_MEMBERS, owner)
        parameters = _parameters(item.get("parameters"), owner)
        _no_shared_memory(parameters, owner)
        if "classification" in parameters:
            raise NotSupported(f"classification of {owner} is not supported: ask for the tensor itself")
        if not isinstance(parameters.get("binary_data", False), bool):
            raise InvalidRequest(f"binary_data of {owner} must be true or false")
        found.append(RequestedOutput(name, parameters))
    return found or None


def _raw_request(body: memoryview, model_inputs: Sequence[Dict[str, Any]]) -> V2Request:
    """json_size 0: the whole body is the tensor of the model's single input; a BYTES tensor is one
    element without a length in front. All outputs go back binary."""
    if len(model_inputs) != 1:
        raise InvalidRequest(
            f"a raw request (Inference-Header-Content-Length: 0) needs a model with one input; this has "
            f"{len(model_inputs) or 'no signature'}"
        )
    (only,) = model_inputs
    name, shape, row = only["name"], list(only["shape"]), datatype(only["datatype"])
    open_dimensions = [axis for axis, size in enumerate(shape) if size < 0]
    if len(open_dimensions) > 1:
        raise InvalidRequest(f"a raw request needs an input with at most one variable dimension; {name!r} is {shape}")
    fixed = 1
    for size in shape:
        fixed *= size if size >= 0 else 1
    count = 1 if row.kind == "bytes" else len(body) // row.size
    whole = (row.kind == "bytes" or len(body) % row.size == 0) and fixed > 0 and count % fixed == 0
    if not whole or (not open_dimensions and count != fixed):
        raise InvalidRequest(
            f"the body's {len(body)} bytes do not fill the input {name!r}, {row.name} of shape {shape}"
        )
    if open_dimensions:
        shape[open_dimensions[0]] = count // fixed
    parameters = {"binary_data_output": True}
    if row.kind == "bytes":
        return V2Request([InferInput(name, shape, row.name, data=[bytes(body)])], None, parameters)
    return V2Request([InferInput(name, shape, row.name, raw=body)], None, parameters)


def build_response(
    model_name: str,
    outputs: Sequence[OutputTensor],
    *,
    model_version: str = "",
    request_id: Optional[str] = None,
    parameters: Optional[Dict[str, Any]] = None,
) -> Tuple[bytes, Optional[int]]:
    """A response's body, and the length of its JSON part if binary tensors follow (else None).

    Members that have nothing to say are left out. JSON has no NaN and no infinity: they are answered
    as `null` (ask for binary data to tell them apart); a `null` in a request's FP tensor means NaN.
    """
    document: Dict[str, Any] = {"model_name": model_name}
    if model_version:
        document["model_version"] = model_version
    if request_id is not None:
        document["id"] = request_id
    if parameters:
        document["parameters"] = parameters
    rows: List[Dict[str, Any]] = []
    tails: List[Body] = []
    for output in outputs:
        row: Dict[str, Any] = {"name": output.name, "shape": output.shape, "datatype": output.datatype}
        if output.raw is None:
            if output.parameters:
                row["parameters"] = output.parameters
            row["data"] = output.data
        else:
            tails.append(output.raw)
            row["parameters"] = {**output.parameters, "binary_data_size": memoryview(output.raw).nbytes}
        rows.append(row)
    document["outputs"] = rows
    text = orjson.dumps(document, option=_DUMP_OPTIONS)
    if not tails:
        return text, None
    return b"".join([text, *tails]), len(text)
