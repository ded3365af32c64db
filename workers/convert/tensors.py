"""V2 tensors to numpy arrays and back, JSON and binary.

    BOOL -> bool      (U)INTn, FP16, FP32, FP64 -> their own dtype      BF16 -> float32 (exact)
    BYTES -> objects: str from JSON, bytes from binary data, or from base64 text where the input's
             parameter content_type is "base64"; None for null, and for an element that is what the
             input's parameter `missing` says

BF16 is the upper half of an FP32, made here by rounding to the nearest, ties to even. Arrays of binary
tensors are views of the request's body: not writable and perhaps not aligned. Called by the V2 dialect
(`dialects/v2.py`); wrong elements are the client's mistake (InvalidRequest), named with their input.

Answers: text in BYTES goes into JSON as it is; bytes do too where they are valid UTF-8, else ALL
elements of that output are base64 and its parameter content_type says so.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import math
import struct
from typing import TYPE_CHECKING, Any, Dict, List, Sequence, Tuple

from ...protocol.datatypes import DATATYPES, Datatype
from ...protocol.errors import InvalidRequest
from ...protocol.v2 import InferInput, OutputTensor

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

_LENGTH = struct.Struct("<I")
#: What `struct` calls the numbers; BF16 is packed as FP32 and rounded then.
_CODES = {
    **dict(zip(("INT8", "INT16", "INT32", "INT64"), "bhiq")),
    **dict(zip(("UINT8", "UINT16", "UINT32", "UINT64"), "BHIQ")),
    **dict(zip(("FP16", "BF16", "FP32", "FP64"), "effd")),
}
#: As protobuf's JSON has them, for one.
_FLOAT_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
#: Up to so many elements are looked at one by one.
_FEW = 64
#: A float that JSON's parser made of a longer integer is exact only below this.
_EXACT_INTEGER = 1 << 53


def to_array(tensor: InferInput) -> Array:
    """The input's elements as an array of its shape. Raises InvalidRequest."""
    row, shape = DATATYPES[tensor.datatype], tensor.shape
    count = math.prod(shape)
    if tensor.raw is None:
        array = _from_json(row, _flatten(tensor.data or [], shape, count, tensor.name), shape, tensor.name)
    else:
        array = _from_raw(row, tensor.raw, count, tensor.name).reshape(shape)
    if tensor.parameters:
        array = _with_missing(row, tensor, array)
        if row.kind == "bytes" and tensor.parameters.get("content_type") == "base64":
            return object_array([_from_base64(each, tensor.name) for each in array.ravel()]).reshape(shape)
    return array


def _with_missing(row: Datatype, tensor: InferInput, array: Array) -> Array:
    """The elements that the client's parameter `missing` stands for as None: binary data and gRPC have no null."""
    sign = tensor.parameters.get("missing")
    if sign is None:
        return array
    if row.kind != "bytes" or not isinstance(sign, str):
        raise InvalidRequest(
            f"the parameter 'missing' of the input {tensor.name!r} is the text that means a missing element of BYTES"
        )
    signs = (sign, sign.encode("utf-8", "surrogatepass"))
    return object_array([None if each in signs else each for each in array.ravel()]).reshape(array.shape)


def to_output(name: str, datatype_name: str, array: Array, *, binary: bool) -> OutputTensor:
    """An array (BF16 as float32, BYTES as objects: str or bytes) as one output of a response.

    Objects of another datatype are its values and None for missing ones. Raises InvalidRequest.
    """
    row = DATATYPES[datatype_name]
    if row.kind == "bytes":
        elements = array.ravel().tolist()
        if binary:
            return OutputTensor(name, row.name, array.shape, raw=pack_elements(elements))
        texts, parameters = _to_texts(elements)
        return OutputTensor(name, row.name, array.shape, data=texts, parameters=parameters)
    shape = array.shape
    if array.dtype == object:
        if binary:
            raise InvalidRequest(
                f"the output {name!r} has missing values, which binary data of {row.name} cannot say: ask for JSON"
            )
        return OutputTensor(name, row.name, shape, data=array.ravel().tolist())
    flat = (array if array.dtype.str == row.numpy else array.astype(row.numpy)).ravel()
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


def _from_raw(row: Datatype, raw: memoryview, count: int, name: str) -> Array:
    import numpy as np

    if row.kind == "bytes":
        return object_array(unpack_elements(raw, count, f"the input {name!r}"))
    if row.name == "BF16":
        return widen_bf16(np.frombuffer(raw, dtype="<u2"))
    if row.kind == "bool":
        flags = np.frombuffer(raw, dtype="u1")
        if flags.size and flags.max() > 1:
            raise InvalidRequest(f"the input {name!r} is BOOL: each byte must be 0 or 1")
        return flags.view("?")
    return np.frombuffer(raw, dtype=row.numpy)


def _flatten(data: List[Any], shape: List[int], count: int, name: str) -> List[Any]:
    """Row-major elements of `data`, which is flat or nested exactly as `shape` says."""
    if data and isinstance(data[0], list) and len(shape) > 1:
        fits = len(data) == shape[0]
        for size in shape[1:]:
            if not fits or set(map(type, data)) - {list} or set(map(len, data)) - {size}:
                raise InvalidRequest(f"the data of the input {name!r} do not have its shape {shape}")
            data = list(itertools.chain.from_iterable(data))
    if len(data) != count:
        raise InvalidRequest(f"the input {name!r} has {len(data)} elements, but its shape {shape} takes {count}")
    return data


def _from_json(row: Datatype, flat: List[Any], shape: List[int], name: str) -> Array:
    import numpy as np

    if row.name not in _CODES:
        return _without_numbers(row, flat, name).reshape(shape)
    array: Any = np.empty(shape, row.numpy)
    layout = f"<{len(flat)}{_CODES[row.name]}"
    try:
        # Refuses what is no number or out of range, and takes half the time of numpy, which does not.
        struct.pack_into(layout, array, 0, *flat)
        packed = not _have_booleans(flat, array)
    except (struct.error, OverflowError):
        packed = False
    try:
        if not packed:
            struct.pack_into(layout, array, 0, *_numbers(row, flat, name))
        return _as_bf16(array) if row.name == "BF16" else array
    except (struct.error, OverflowError):
        raise InvalidRequest(f"a value of the input {name!r} is beyond the range of {row.name}") from None


def _have_booleans(flat: List[Any], array: Array) -> bool:
    """Are some of the elements that were packed as these numbers booleans? `struct` takes them for 0 and 1."""
    if len(flat) > _FEW:
        suspects = ((array == 0) | (array == 1)).ravel().nonzero()[0]
        if len(suspects) < len(flat) // 4:
            flat = [flat[at] for at in suspects.tolist()]
    return bool in set(map(type, flat))


def _numbers(row: Datatype, flat: List[Any], name: str) -> List[Any]:
    """As numbers what was not packed: null and "NaN" are NaN, a whole float an integer. Raises InvalidRequest."""
    types = set(map(type, flat))
    if row.kind == "float" and types <= {float, int, type(None)}:
        return [math.nan if each is None else each for each in flat]
    if row.kind == "float" and types <= {float, int, str, type(None)}:
        words = [_FLOAT_WORDS.get(each, each) if isinstance(each, str) else each for each in flat]
        if str not in set(map(type, words)):
            return [math.nan if each is None else each for each in words]
    if row.kind == "int" and types <= {int, float}:
        owner = f"the input {name!r}"
        whole = [_whole(each, row, owner) for each in flat]
        for wrong in (min(whole), max(whole)):
            if not row.low <= wrong <= row.high:
                raise InvalidRequest(f"{owner}: {wrong} is beyond the range of {row.name} ({row.low} to {row.high})")
        return whole
    raise _unfit(row, flat, name)


def _without_numbers(row: Datatype, flat: List[Any], name: str) -> Array:
    import numpy as np

    types = set(map(type, flat))
    if row.kind == "bytes" and types <= {str, bytes, type(None)}:  # bytes: of a raw request, JSON has none
        return object_array(flat)
    if row.kind == "bool" and (types <= {bool} or (types <= {bool, int} and set(flat) <= {0, 1})):
        return np.array(flat, dtype="?")
    raise _unfit(row, flat, name)


_WANTED = {
    "float": "numbers (null for NaN)",
    "int": "whole numbers",
    "bytes": "strings (or null)",
    "bool": "true or false (or 1 or 0)",
}
_JSON_NAMES = {list: "a list", dict: "an object", str: "a string", bool: "true or false", type(None): "null"}
_ACCEPTED = {"float": (float, int, type(None)), "int": (int, float), "bytes": (str,), "bool": (bool,)}


def _unfit(row: Datatype, flat: List[Any], name: str) -> InvalidRequest:
    wrong = [type(each) for each in flat if type(each) not in _ACCEPTED[row.kind]]
    found = _JSON_NAMES.get(wrong[0], "other numbers" if row.kind == "bool" else "numbers") if wrong else "such values"
    return InvalidRequest(f"the input {name!r} is {row.name}: its data must be {_WANTED[row.kind]}, not {found}")


def _as_bf16(array: Array) -> Array:
    """FP32 rounded to what BF16 can hold, still as FP32. Raises OverflowError."""
    import numpy as np

    rounded = widen_bf16(round_to_bf16(array)).reshape(array.shape)
    if (np.isinf(rounded) & np.isfinite(array)).any():
        raise OverflowError
    return rounded


def _whole(value: Any, row: Datatype, owner: str) -> int:
    if isinstance(value, int):
        return value
    if not value.is_integer():
        raise InvalidRequest(f"{owner} is {row.name}: {value} is not a whole number")
    if abs(value) > _EXACT_INTEGER:
        raise InvalidRequest(f"{owner}: {value} is beyond the range of {row.name}, or not written as a whole number")
    return int(value)


def _from_base64(value: Any, name: str) -> Any:
    if value is None:
        return None
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        why = "says content_type base64, but an element is not valid base64"
        raise InvalidRequest(f"the input {name!r} {why}") from None


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
