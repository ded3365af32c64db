"""Every datatype from a client's bytes to numpy to a response's bytes and back, JSON and binary."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub.serving.protocol.datatypes import DATATYPES
from modelhub.serving.protocol.errors import InvalidRequest
from modelhub.serving.protocol.v2 import build_response, parse_request
from modelhub.serving.workers.convert.tensors import round_to_bf16, to_array, to_output, widen_bf16
from support.v2_client import binary_request, pack, parse, request, tensor, unpack


def bf16(bits: int) -> float:
    value: float = struct.unpack("<f", struct.pack("<I", bits << 16))[0]
    return value


def element(name: str) -> st.SearchStrategy[Any]:
    row = DATATYPES[name]
    if row.kind == "bool":
        return st.booleans()
    if row.kind == "int":
        return st.integers(row.low, row.high)
    if row.kind == "bytes":
        return st.text(max_size=8).map(str.encode)
    if name == "BF16":
        return st.integers(0, 0xFFFF).map(bf16).filter(math.isfinite)
    return st.floats(width={2: 16, 4: 32, 8: 64}[row.size], allow_nan=False, allow_infinity=False)  # type: ignore[call-overload, no-any-return]


@st.composite
def tensors(draw: st.DrawFn, name: str) -> dict[str, Any]:
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    count = math.prod(shape)
    data = draw(st.lists(element(name), min_size=count, max_size=count))
    return tensor("x", name, shape, data)


def nested(flat: list[Any], shape: list[int]) -> list[Any]:
    if len(shape) <= 1:
        return flat
    step = math.prod(shape[1:])
    return [nested(flat[at * step : (at + 1) * step], shape[1:]) for at in range(shape[0])]


def jsonable(sent: dict[str, Any], *, is_nested: bool) -> dict[str, Any]:
    data = [each.decode() for each in sent["data"]] if sent["datatype"] == "BYTES" else sent["data"]
    return {**sent, "data": nested(data, sent["shape"]) if is_nested else data}


def answer(body: bytes, json_size: int | None, *, binary: bool) -> Any:
    """What comes back when the request's tensors are echoed."""
    parsed = parse_request(body, json_size)
    outputs = [to_output(each.name, each.datatype, to_array(each), binary=binary) for each in parsed.inputs]
    return parse(*build_response("m", outputs))[1]["x"]


@pytest.mark.parametrize("name", list(DATATYPES))
@given(data=st.data(), as_binary=st.booleans(), is_nested=st.booleans(), back_as_binary=st.booleans())
def test_round_trip(name: str, data: st.DataObject, as_binary: bool, is_nested: bool, back_as_binary: bool) -> None:
    sent = data.draw(tensors(name))
    body, json_size = binary_request(sent) if as_binary else (request(jsonable(sent, is_nested=is_nested)), None)
    back = answer(body, json_size, binary=back_as_binary)
    # JSON gives FP16 and FP32 no more digits than they need: a client narrows what it has read.
    assert (back.datatype, back.shape, unpack(name, pack(name, back.data))) == (name, sent["shape"], sent["data"])


@given(st.lists(st.binary(max_size=6), max_size=5), st.booleans())
def test_bytes_that_are_no_text(elements: list[bytes], binary: bool) -> None:
    """Base64 in JSON answers, marked by the output's content_type."""
    body, json_size = binary_request(tensor("x", "BYTES", [len(elements)], elements))
    assert answer(body, json_size, binary=binary).data == elements


def test_base64_in_a_request() -> None:
    (only,) = parse_request(request(tensor("x", "BYTES", [1], ["/wA="], content_type="base64"))).inputs
    assert to_array(only).tolist() == [b"\xff\0"]


@pytest.mark.parametrize("name", ["FP16", "BF16", "FP32", "FP64"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_has_no_number_for(name: str, value: float) -> None:
    """Binary answers hold NaN and infinities; JSON ones null, which a request may send for NaN."""
    raw = pack("BF16", [value]) if name == "BF16" else pack(name, [value])
    text = json.dumps(
        {"inputs": [{"name": "x", "datatype": name, "shape": [1], "parameters": {"binary_data_size": len(raw)}}]}
    ).encode()
    (back,) = answer(text + raw, len(text), binary=True).data
    assert back == value or (math.isnan(back) and math.isnan(value))
    assert answer(text + raw, len(text), binary=False).data == [None]
    (from_null,) = answer(request(tensor("x", name, [1], [None])), None, binary=True).data
    assert math.isnan(from_null)


@given(st.floats(width=32))
def test_bf16_rounds_to_the_nearest_even(value: float) -> None:
    (bits,) = round_to_bf16(np.array([value], dtype="f4")).tolist()
    if math.isnan(value):
        assert math.isnan(bf16(bits))
        return
    (exact,) = struct.unpack("<I", struct.pack("<f", value))
    below, rest = exact >> 16, exact & 0xFFFF
    up = rest > 0x8000 or (rest == 0x8000 and below & 1)
    assert bits == below + int(up)


def test_every_bf16_survives() -> None:
    bits = np.arange(1 << 16, dtype="<u2")
    values = widen_bf16(bits)
    numbers = ~np.isnan(values)
    assert (round_to_bf16(values)[numbers] == bits[numbers]).all()
    assert np.isnan(widen_bf16(round_to_bf16(values[~numbers]))).all()


@pytest.mark.parametrize(
    ("name", "values"),
    [("INT64", [-(2**63), 2**63 - 1, 2**53 + 1]), ("UINT64", [0, 2**64 - 1, 2**53 + 1])],
)
def test_long_integers_are_exact(name: str, values: list[int]) -> None:
    assert answer(request(tensor("x", name, [3], values)), None, binary=False).data == values


def test_whole_floats_are_integers() -> None:
    assert answer(request(tensor("x", "INT32", [2], [1.0, 2])), None, binary=False).data == [1, 2]


def test_ones_and_zeros_are_booleans() -> None:
    assert answer(request(tensor("x", "BOOL", [3], [1, 0, True])), None, binary=False).data == [True, False, True]


WRONG_ELEMENTS = [
    ("UINT8", [300]),
    ("UINT8", [-1]),
    ("INT8", [128]),
    ("INT32", [2**31]),
    ("INT64", [2**63]),
    ("INT64", [-(2**63) - 1]),
    ("UINT64", [-1]),
    ("UINT64", [2**64]),
    ("INT32", [1.5]),
    ("INT32", [True]),
    ("INT32", ["1"]),
    ("INT32", [None]),
    ("BOOL", [2]),
    ("BOOL", [0.0]),
    ("BOOL", [None]),
    ("BOOL", ["true"]),
    ("FP32", ["1"]),
    ("FP32", [True]),
    ("FP32", [{}]),
    ("FP32", [[1]]),
    ("FP32", [1e39]),
    ("FP16", [70000]),
    ("BF16", [3.4e38]),
    ("BYTES", [1]),
    ("BYTES", [["a"]]),
]


@pytest.mark.parametrize(("name", "data"), WRONG_ELEMENTS)
def test_wrong_elements(name: str, data: list[Any]) -> None:
    with pytest.raises(InvalidRequest, match="'x'"):
        answer(request(tensor("x", name, [1], data)), None, binary=False)


@pytest.mark.parametrize("rest", [0, 1, 7])
@pytest.mark.parametrize(("name", "data"), WRONG_ELEMENTS)
def test_a_wrong_element_among_many(name: str, data: list[Any], rest: int) -> None:
    """Many elements are not looked at one by one, but one wrong one is found; also among those that look like it."""
    others = [str(rest) if name == "BYTES" else bool(rest) if name == "BOOL" else rest] * 200
    with pytest.raises(InvalidRequest, match="'x'"):
        answer(request(tensor("x", name, [201], [*others, *data])), None, binary=False)


@pytest.mark.parametrize("name", ["FP16", "FP32", "FP64", "INT8", "UINT64"])
def test_an_unusual_element_among_many(name: str) -> None:
    sent, expected = (None, None) if name.startswith("FP") else (3.0, 3)
    data = answer(request(tensor("x", name, [201], [*[1] * 200, sent])), None, binary=False).data
    assert data == [*[1] * 200, expected]


@pytest.mark.parametrize("name", ["FP16", "FP32"])
@given(value=st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**64 - 1))
def test_numbers_are_narrowed_as_numpy_does(name: str, value: float) -> None:
    with np.errstate(over="ignore"):
        expected = np.float64(value).astype(DATATYPES[name].numpy)
    if np.isinf(expected):
        with pytest.raises(InvalidRequest, match=f"beyond the range of {name}"):
            answer(request(tensor("x", name, [1], [value])), None, binary=True)
    else:
        assert answer(request(tensor("x", name, [1], [value])), None, binary=True).data == [expected]


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([2], [1]),
        ([2], [1, 2, 3]),
        ([0], [1]),
        ([], []),
        ([], [1, 2]),
        ([2, 2], [1, 2, 3]),
        ([2, 2], [[1, 2], [3]]),
        ([2, 2], [[1, 2, 3, 4]]),
        ([2, 2], [[1, 2], 3, 4]),
        ([2, 2], [[[1], [2]], [[3], [4]]]),
        ([1, 1, 2], [[1, 2]]),
        ([4], [[1, 2], [3, 4]]),
        ([2, 0], [[]]),
    ],
)
def test_data_that_do_not_have_the_shape(shape: list[int], data: list[Any]) -> None:
    with pytest.raises(InvalidRequest):
        answer(request(tensor("x", "FP32", shape, data)), None, binary=False)


def test_data_nested_a_thousand_deep() -> None:
    deep: Any = 1
    for _ in range(900):
        deep = [deep]
    with pytest.raises(InvalidRequest):
        answer(request(tensor("x", "FP32", [1, 1], deep)), None, binary=False)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0\0\0",
        b"\1\0\0\0",
        b"\xff\xff\xff\xffab",
        b"\1\0\0\0a",
        b"\1\0\0\0a\2\0\0\0bcd",
        b"\1\0\0\0a\0\0\0",
    ],
)
def test_hostile_binary_bytes(raw: bytes) -> None:
    """Two elements are promised."""
    item = {"name": "x", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": len(raw)}}
    text = request(item)
    with pytest.raises(InvalidRequest):
        answer(text + raw, len(text), binary=False)


def test_a_huge_shape_of_binary_bytes_costs_nothing() -> None:
    item = {"name": "x", "datatype": "BYTES", "shape": [1 << 40], "parameters": {"binary_data_size": 0}}
    text = request(item)
    with pytest.raises(InvalidRequest):
        answer(text, len(text), binary=False)


def test_binary_booleans_are_zero_or_one() -> None:
    item = {"name": "x", "datatype": "BOOL", "shape": [1], "parameters": {"binary_data_size": 1}}
    text = request(item)
    with pytest.raises(InvalidRequest):
        answer(text + b"\2", len(text), binary=False)


def test_text_in_no_encoding_is_base64() -> None:
    """A model may answer with strings that are no Unicode."""
    array = np.array(["a", "\udcff"], dtype=object)
    output = to_output("y", "BYTES", array, binary=False)
    assert output.parameters == {"content_type": "base64"}
    build_response("m", [output])


def test_arrays_of_any_layout() -> None:
    array = np.arange(6, dtype=">i4").reshape(2, 3).T
    output = to_output("y", "INT32", array, binary=True)
    assert output.shape == (3, 2)
    assert output.raw is not None
    assert unpack("INT32", bytes(output.raw)) == [0, 3, 1, 4, 2, 5]
