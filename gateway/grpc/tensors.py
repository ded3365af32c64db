"""Tensors between protobuf's typed contents and the V2 binary form. No numbers are touched, only their bytes.

Repeated FP32, FP64 and BOOL fields lie in a serialized message exactly as V2's binary form wants them (packed,
little-endian, a byte per boolean): they are cut out of it, and put into it, as a whole. The other integers are
varints there and go through `array` and `memoryview.cast`. FP16 and BF16 have no typed contents.
Called by `codec.py`, for large tensors in a thread.
"""

from __future__ import annotations

import base64
import itertools
import struct
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

from ...config.fields import MAX_NAME
from ...protocol.codec import Body
from ...protocol.datatypes import datatype as known_datatype
from ...protocol.errors import InvalidRequest, ServingError
from ...protocol.v2 import MAX_DIMENSIONS
from .generated import open_inference_pb2 as pb

#: Where the elements of a datatype stand in InferTensorContents.
FIELDS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
#: Those whose field, serialized, is the tensor: tag of the field.
AS_THEY_ARE = {
    name: bytes([pb.InferTensorContents.DESCRIPTOR.fields_by_name[FIELDS[name]].number << 3 | 2])
    for name in ("BOOL", "FP32", "FP64")
}
#: Codes of array and memoryview.
_CODES = {"UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b", "INT16": "h", "INT32": "i"} | {
    "INT64": "q"
}
_STRUCT = {**_CODES, "BOOL": "?", "FP16": "e", "FP32": "f", "FP64": "d"}
_LENGTH = struct.Struct("<I")


def pack(name: str, datatype: str, shape: Sequence[int], contents: pb.InferTensorContents) -> Body:
    """The typed contents of the input `name` in binary form. Raises InvalidRequest."""
    field = FIELDS.get(datatype)
    if field is None:
        known_datatype(datatype)
        raise InvalidRequest(
            f"the input {name[:MAX_NAME]!r} is {datatype}, which has no typed contents: use raw_input_contents"
        )
    for filled, _ in contents.ListFields():
        if filled.name != field:
            raise InvalidRequest(
                f"the elements of the input {name[:MAX_NAME]!r}, {datatype}, belong in {field}, not {filled.name}"
            )
    elements = getattr(contents, field)
    if len(shape) > MAX_DIMENSIONS:  # the product of very many could be worked on for ever
        raise InvalidRequest(
            f"the input {name[:MAX_NAME]!r} has {len(shape)} dimensions: at most {MAX_DIMENSIONS} are possible"
        )
    count = 1
    for size in shape:
        count *= size
    if len(elements) != count and min(shape, default=0) >= 0:  # what else is wrong with a shape is the worker's word
        raise InvalidRequest(
            f"the input {name[:MAX_NAME]!r} has {len(elements)} elements, but its shape {list(shape)} takes {count}"
        )
    if datatype in AS_THEY_ARE:
        return _cut_out(contents.SerializeToString()) if count else b""
    if datatype == "BYTES":
        return _prefixed(elements)
    try:
        return memoryview(array(_CODES[datatype], elements)).cast("B")
    except OverflowError:
        raise InvalidRequest(f"a value of the input {name[:MAX_NAME]!r} is beyond the range of {datatype}") from None


def unpack(datatype: str, raw: memoryview, contents: pb.InferTensorContents) -> None:
    """Fill `contents` with a tensor in binary form, of a datatype of FIELDS."""
    tag = AS_THEY_ARE.get(datatype)
    if tag is not None:
        contents.MergeFromString(b"".join([tag, varint(raw.nbytes), raw]))
    elif datatype == "BYTES":
        contents.bytes_contents.extend(_elements(raw))
    else:
        elements: memoryview[int] = raw.cast(_CODES[datatype])  # type: ignore[call-overload]
        getattr(contents, FIELDS[datatype]).extend(elements)


def pack_json(datatype: str, data: Sequence[Any], parameters: dict[str, Any]) -> Body:
    """The elements of a JSON answer (a service may give one) in binary form. Raises ServingError."""
    try:
        while data and isinstance(data[0], list):
            data = list(itertools.chain.from_iterable(data))
        if datatype == "BYTES":
            decode = base64.b64decode if parameters.get("content_type") == "base64" else str.encode
            return _prefixed(decode(each) for each in data)
        if datatype == "BF16":
            return b"".join(struct.pack("<f", _number(each))[2:] for each in data)
        return struct.pack(f"<{len(data)}{_STRUCT[datatype]}", *map(_number, data))
    except (KeyError, TypeError, ValueError, OverflowError, struct.error) as error:
        raise ServingError(f"the model's answer is no V2 tensor of {datatype}: {error}") from None


def _number(value: Any) -> Any:
    return float("nan") if value is None else value


def _prefixed(elements: Iterable[bytes]) -> bytes:
    parts: list[bytes] = []
    for each in elements:
        parts.append(_LENGTH.pack(len(each)))
        parts.append(each)
    return b"".join(parts)


def _elements(raw: memoryview) -> list[bytes]:
    found: list[bytes] = []
    start = 0
    while start < raw.nbytes:
        (length,) = _LENGTH.unpack_from(raw, start)
        found.append(bytes(raw[start + 4 : start + 4 + length]))
        start += 4 + length
    return found


def _cut_out(message: bytes) -> memoryview:
    """The value of the only field of a serialized message: tag, length as a varint, value."""
    at, length, shift = 1, 0, 0
    while True:
        byte = message[at]
        length |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return memoryview(message)[at : at + length]


def varint(value: int) -> bytes:
    """A number as protobuf writes lengths."""
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
