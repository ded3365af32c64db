"""V2 tensors to numpy arrays and back, JSON and binary.

    BOOL -> bool      (U)INTn, FP16, FP32, FP64 -> their own dtype      BF16 -> float32 (exact)
    BYTES -> objects: str from JSON, bytes from binary data, or from base64 text where the input's
             parameter content_type is "base64"

BF16 is the upper half of an FP32, made here by rounding to the nearest, ties to even. Arrays of binary
tensors are views of the request's body: not writable and perhaps not aligned. Called by the V2 dialect
in `served.py`; wrong elements are the client's mistake (InvalidRequest), named with their input.

Answers: text in BYTES goes into JSON as it is; bytes do too where they are valid UTF-8, else ALL
elements of that output are base64 and its parameter content_type says so.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import struct
from typing import TYPE_CHECKING, Any, Dict, List, Sequence, Tuple

from ..protocol.datatypes import Datatype, datatype
from ..protocol.errors import InvalidRequest
from ..protocol.v2 import InferInput, OutputTensor

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

_LENGTH = struct.Struct("<I")
#: A float that JSON's parser made of a longer integer is exact only below this.
_EXACT_INTEGER = 1 << 53


def to_array(tensor: InferInput) -> Array:
    """The input's elements as an array of its shape. Raises InvalidRequest."""
    row = datatype(tensor.datatype)
    owner = f"the input {tensor.name!r}"
    count = _product(tensor.shape)
    if tensor.raw is not None:
        array = _from_raw(row, tensor.raw, count, owner)
    else:
        flat = _flatten(tensor.data or [], tensor.shape, count, owner)
        array = _from_json(row, flat, owner)
    if row.kind == "bytes" and tensor.parameters.get("content_type") == "base64":
        array = object_array([_from_base64(each, owner) for each in array])
    return array.reshape(tensor.shape)


def to_output(name: str, datatype_name: str, array: Array, *, binary: bool) -> OutputTensor:
    """An array (BF16 as float32, BYTES as objects: str or bytes) as one output of a response."""
    import numpy as np

    row = datatype(datatype_name)
    if row.kind == "bytes":
        elements = array.ravel().tolist()
        if binary:
            return OutputTensor(name, row.name, array.shape, raw=pack_elements(elements))
        texts, parameters = _to_texts(elements)
        return OutputTensor(name, row.name, array.shape, data=texts, parameters=parameters)
    shape = array.shape
    flat = np.ascontiguousarray(array, dtype=row.numpy).ravel()
    if not binary:
        # orjson writes FP32 with as few digits as FP32 needs, but not every version knows FP16.
        return OutputTensor(name, row.name, shape, data=flat.astype("<f4") if row.name == "FP16" else flat)
    if row.name == "BF16":
        flat = round_to_bf16(flat)
    return OutputTensor(name, row.name, shape, raw=flat.view("u1").data)


def object_array(elements: Sequence[Any]) -> Array:
    """A flat array of objects; numpy must not look into the elements (lists stay lists)."""
    import numpy as np

    array = np.empty(len(elements), dtype=object)
    if set(map(type, elements)) <= {str, bytes}:
        array[:] = elements
    else:
        for position, each in enumerate(elements):
            array[position] = each
    return array


def round_to_bf16(values: Array) -> Array:
    """float32 to BF16's bits as uint16, to the nearest, ties to even; NaN stays NaN."""
    import numpy as np

    bits = np.ascontiguousarray(values, dtype="<f4").view("<u4")
    with np.errstate(over="ignore"):
        rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    quiet = (bits >> np.uint32(16)) | np.uint32(0x40)  # rounding could carry a NaN's bits into infinity
    return np.where(np.isnan(values), quiet, rounded).astype("<u2")


def widen_bf16(bits: Array) -> Array:
    """BF16's bits (uint16) to float32, exact."""
    import numpy as np

    return (bits.astype("<u4") << np.uint32(16)).view("<f4")


def pack_elements(elements: Sequence[Any]) -> bytes:
    """BYTES elements (str or bytes) in binary form: uint32 length and bytes, each."""
    parts: List[bytes] = []
    for each in elements:
        raw = each.encode("utf-8", "surrogatepass") if isinstance(each, str) else bytes(each)
        parts.append(_LENGTH.pack(len(raw)))
        parts.append(raw)
    return b"".join(parts)


def unpack_elements(raw: memoryview, count: int, owner: str) -> List[bytes]:
    """The `count` elements of a binary BYTES tensor. Raises InvalidRequest."""
    total = len(raw)
    if 4 * count > total:
        raise InvalidRequest(f"{owner} has {count} BYTES elements, which {total} bytes cannot hold")
    found: List[bytes] = []
    start = 0
    for position in range(count):
        if start + 4 > total:
            raise InvalidRequest(f"the binary data of {owner} end before element {position}")
        (length,) = _LENGTH.unpack_from(raw, start)
        end = start + 4 + length
        if end > total:
            raise InvalidRequest(f"element {position} of {owner} is {length} bytes long: more than the tensor has")
        found.append(bytes(raw[start + 4 : end]))
        start = end
    if start != total:
        raise InvalidRequest(f"{total - start} bytes follow the last element of {owner}")
    return found


def _product(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _from_raw(row: Datatype, raw: memoryview, count: int, owner: str) -> Array:
    import numpy as np

    if row.kind == "bytes":
        return object_array(unpack_elements(raw, count, owner))
    if row.name == "BF16":
        return widen_bf16(np.frombuffer(raw, dtype="<u2"))
    if row.kind == "bool":
        flags = np.frombuffer(raw, dtype="u1")
        if flags.size and flags.max() > 1:
            raise InvalidRequest(f"{owner} is BOOL: each byte must be 0 or 1")
        return flags.view("?")
    return np.frombuffer(raw, dtype=row.numpy)


def _flatten(data: List[Any], shape: List[int], count: int, owner: str) -> List[Any]:
    """Row-major elements of `data`, which is flat or nested exactly as `shape` says."""
    nested = len(shape) > 1 and bool(data) and isinstance(data[0], list)
    if nested:
        if len(data) != shape[0]:
            raise InvalidRequest(f"the data of {owner} do not have its shape {shape}")
        for size in shape[1:]:
            if set(map(type, data)) - {list} or set(map(len, data)) - {size}:
                raise InvalidRequest(f"the data of {owner} do not have its shape {shape}")
            data = list(itertools.chain.from_iterable(data))
    if len(data) != count:
        raise InvalidRequest(f"{owner} has {len(data)} elements, but its shape {shape} takes {count}")
    return data


def _from_json(row: Datatype, flat: List[Any], owner: str) -> Array:
    import numpy as np

    types = set(map(type, flat))
    if row.kind == "float":
        if types <= {float, int, type(None)}:
            return _floats(row, flat, owner)
    elif row.kind == "int":
        if types <= {int}:
            return _integers(row, flat, owner)
        if types <= {int, float}:
            return _integers(row, [_whole(each, row, owner) for each in flat], owner)
    elif row.kind == "bytes":
        if types <= {str}:
            return object_array(flat)
    elif types <= {bool} or (types <= {bool, int} and set(flat) <= {0, 1}):
        return np.array(flat, dtype="?")
    raise InvalidRequest(f"{owner} is {row.name}: its data must be {_WANTED[row.kind]}, not {_unwanted(row, flat)}")


_WANTED = {
    "float": "numbers (null for NaN)",
    "int": "whole numbers",
    "bytes": "strings",
    "bool": "true or false (or 1 or 0)",
}
_JSON_NAMES = {list: "a list", dict: "an object", str: "a string", bool: "true or false", type(None): "null"}
_ACCEPTED = {"float": (float, int, type(None)), "int": (int, float), "bytes": (str,), "bool": (bool,)}


def _unwanted(row: Datatype, flat: List[Any]) -> str:
    for each in flat:
        if type(each) not in _ACCEPTED[row.kind]:
            return _JSON_NAMES.get(type(each), "other numbers")
    return "such values"


def _floats(row: Datatype, flat: List[Any], owner: str) -> Array:
    import numpy as np

    with np.errstate(over="raise"):
        try:
            wide = np.array(flat, dtype="<f8")
            array = wide if row.name == "FP64" else wide.astype(row.numpy)
        except FloatingPointError:
            raise InvalidRequest(f"a value of {owner} is beyond the range of {row.name}") from None
    if row.name == "BF16":
        array = widen_bf16(round_to_bf16(array))
        if np.isinf(array).any():
            raise InvalidRequest(f"a value of {owner} is beyond the range of BF16")
    return array


def _whole(value: Any, row: Datatype, owner: str) -> int:
    if isinstance(value, int):
        return value
    if not value.is_integer():
        raise InvalidRequest(f"{owner} is {row.name}: {value} is not a whole number")
    if abs(value) > _EXACT_INTEGER:
        raise InvalidRequest(f"{owner}: {value} is beyond the range of {row.name}, or not written as a whole number")
    return int(value)


def _integers(row: Datatype, flat: List[Any], owner: str) -> Array:
    import numpy as np

    if flat:
        # Checked before numpy sees them: numpy 1 wraps what is out of range.
        low, high = min(flat), max(flat)
        if low < row.low or high > row.high:
            wrong = low if low < row.low else high
            raise InvalidRequest(f"{owner}: {wrong} is beyond the range of {row.name} ({row.low} to {row.high})")
    return np.array(flat, dtype=row.numpy)


def _from_base64(value: Any, owner: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"{owner} says content_type base64, but an element is not valid base64") from None


def _to_texts(elements: List[Any]) -> Tuple[List[str], Dict[str, Any]]:
    """Text for JSON, and the parameters that say how to read it."""
    try:
        texts = [each if isinstance(each, str) else bytes(each).decode("utf-8") for each in elements]
        for each in texts:
            each.encode("utf-8")  # lone surrogates have no place in JSON
        return texts, {}
    except UnicodeError:
        pass
    raws = [each.encode("utf-8", "surrogatepass") if isinstance(each, str) else bytes(each) for each in elements]
    return [base64.b64encode(raw).decode("ascii") for raw in raws], {"content_type": "base64"}
