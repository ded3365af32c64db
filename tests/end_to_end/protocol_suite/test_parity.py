"""Every case by REST JSON, REST binary, gRPC raw and gRPC typed: the same answer, or the same kind of error."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from support.doors import DOORS, Case, In, Out, Outcome
from support.gateway_process import Gateway

F32 = struct.unpack("f", struct.pack("f", 0.1))[0]
#: Extremes and ordinary values, four of each; `FP16` and `BF16` have no typed contents.
VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False, False, True],
    **{f"UINT{bits}": [0, 1, 127, 2**bits - 1] for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": [-(2 ** (bits - 1)), -1, 0, 2 ** (bits - 1) - 1] for bits in (8, 16, 32, 64)},
    "FP16": [-65504.0, 0.5, 0.0, 6.103515625e-05],
    "BF16": [1.5, -2.0, 3.25, 2.0**127],
    "FP32": [F32, -3.4028234663852886e38, 1.1754943508222875e-38, 16777216.0],
    "FP64": [0.1, -1.7976931348623157e308, 5e-324, 2.0**53],
    "BYTES": [b"", b"plain", "naïve ☃ 🎉".encode(), b'" \\ \n'],
}
UNTYPED = ("FP16", "BF16")
#: What numpy makes of it, and so what a model without a signature answers.
ANSWERED = {"BF16": "FP32"}
SHAPES = {"vector": [4], "matrix": [2, 2], "deep": [1, 2, 1, 2]}


def everywhere(gateway: Gateway, case: Case) -> Outcome:
    """The outcome, which is the same by every door that can carry the case."""
    doors = {
        name: door
        for name, door in DOORS.items()
        if name != "grpc typed" or not any(each.datatype in UNTYPED for each in case.inputs)
    }
    outcomes = {name: door(gateway, case) for name, door in doors.items()}
    first = outcomes["rest json"]
    assert outcomes == dict.fromkeys(doors, first)
    for name, outcome in outcomes.items():
        assert bool(outcome.message) == (outcome.code != "OK"), name
    return first


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("datatype", VALUES)
def test_every_datatype(shared_gateway: Gateway, datatype: str, shape: str) -> None:
    values, dimensions = VALUES[datatype], SHAPES[shape]
    outcome = everywhere(shared_gateway, Case("echo", [In("x", datatype, dimensions, values)]))
    assert outcome == Outcome(
        "OK", "", "echo", "1", "", [("output-0", Out(ANSWERED.get(datatype, datatype), dimensions, values))]
    )


@pytest.mark.parametrize("datatype", VALUES)
def test_scalars(shared_gateway: Gateway, datatype: str) -> None:
    outcome = everywhere(shared_gateway, Case("echo", [In("x", datatype, [], VALUES[datatype][1:2])]))
    assert outcome.outputs == [("output-0", Out(ANSWERED.get(datatype, datatype), [1], VALUES[datatype][1:2]))]


@pytest.mark.parametrize("shape", [[0], [0, 4], [2, 0, 3]])
@pytest.mark.parametrize("datatype", VALUES)
def test_tensors_without_elements(shared_gateway: Gateway, datatype: str, shape: list[int]) -> None:
    outcome = everywhere(shared_gateway, Case("echo", [In("x", datatype, shape, [])]))
    [(name, output)] = outcome.outputs
    assert (outcome.code, name, output.data) == ("OK", "output-0", [])
    if datatype != "BYTES":  # nothing says what an empty array of objects holds
        assert (output.datatype, output.shape) == (ANSWERED.get(datatype, datatype), shape)


@pytest.mark.parametrize("shape", [[0, 4], [3, 0]])
def test_zero_dimensions_of_a_signature(shared_gateway: Gateway, shape: list[int]) -> None:
    outcome = everywhere(shared_gateway, Case("identity", [In("input-0", "FP32", shape, [])]))
    assert [output.shape for _, output in outcome.outputs] == [shape]


def test_bytes_that_are_no_text(shared_gateway: Gateway) -> None:
    values = [bytes(range(256)), b"\xff\xfe", b"\0", b"\x80" * 1000]
    outcome = everywhere(shared_gateway, Case("echo", [In("x", "BYTES", [4], values)]))
    assert outcome.outputs == [("output-0", Out("BYTES", [4], values))]


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_nan(shared_gateway: Gateway, datatype: str) -> None:
    doors = [name for name in DOORS if name != "rest json"]  # whose own form of NaN is null, tested elsewhere
    case = Case("echo", [In("x", datatype, [3], [float("nan"), float("inf"), -0.0])])
    for name in doors:
        [(_, output)] = DOORS[name](shared_gateway, case).outputs
        assert repr(output.data) == "['nan', inf, -0.0]", name


@pytest.mark.parametrize("count", [1, 63, 64, 2000, 300_000])
def test_sizes_around_the_borders(shared_gateway: Gateway, count: int) -> None:
    """Bodies inside the header, beside it, and those that are converted in a thread."""
    values = [float(each % 1000) for each in range(count)]
    outcome = everywhere(shared_gateway, Case("identity", [In("input-0", "FP32", [count, 1], values)]))
    assert outcome.outputs[0][1] == Out("FP32", [count, 1], values)
    if count <= 64:
        texts = [b"x" * each for each in range(count)]
        outcome = everywhere(shared_gateway, Case("echo", [In("x", "BYTES", [count], texts)]))
        assert outcome.outputs[0][1].data == texts


PAIR = [In("left", "FP32", [3], [1.0, 2.0, 3.0]), In("right", "FP32", [3], [10.0, 20.0, 30.0])]
SUM = ("sum", Out("FP32", [3], [11.0, 22.0, 33.0]))
DIFFERENCE = ("difference", Out("FP32", [3], [-9.0, -18.0, -27.0]))
IRIS = [
    In(name, "FP64", [2], values)
    for name, values in {
        "sepal_length": [5.1, 6.3],
        "sepal_width": [3.5, 3.3],
        "petal_length": [1.4, 6.0],
        "petal_width": [0.2, 2.5],
    }.items()
]
GOOD: dict[str, tuple[Case, list[tuple[str, Out]]]] = {
    "two inputs": (Case("pair", PAIR), [SUM, DIFFERENCE]),
    "in another order": (Case("pair", PAIR[::-1]), [SUM, DIFFERENCE]),
    "integers for floats": (Case("pair", [PAIR[0], In("right", "INT8", [3], [10, 20, 30])]), [SUM, DIFFERENCE]),
    "one output": (Case("pair", PAIR, outputs=["difference"]), [DIFFERENCE]),
    "outputs in another order": (Case("pair", PAIR, outputs=["difference", "sum"]), [DIFFERENCE, SUM]),
    "columns": (Case("iris", IRIS), [("output-0", Out("INT64", [2], [0, 2]))]),
    "parameters": (
        Case("params", [In("value", "FP64", [2], [1.5, 2.0])], parameters={"factor": 2.0, "offset": 1, "suffix": "é"}),
        [("value", Out("FP64", [2], [4.0, 5.0])), ("label", Out("BYTES", [2], ["4é".encode(), "5é".encode()]))],
    ),
    "protocol parameters": (
        Case("pair", PAIR, parameters={"priority": 1, "timeout": 20_000_000, "sequence_id": 7}),
        [SUM, DIFFERENCE],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_good_requests(shared_gateway: Gateway, name: str) -> None:
    case, outputs = GOOD[name]
    assert everywhere(shared_gateway, case) == Outcome("OK", "", case.model, "1", "", outputs)


@pytest.mark.parametrize("request_id", ["7", "a b/ü☃", "x" * 5000, '"\\\n'])
def test_the_id_comes_back(shared_gateway: Gateway, request_id: str) -> None:
    assert everywhere(shared_gateway, Case("pair", PAIR, id=request_id)).id == request_id


def test_a_version(shared_gateway: Gateway) -> None:
    assert everywhere(shared_gateway, Case("pair", PAIR, version="1")).outputs == [SUM, DIFFERENCE]


MATRIX = In("input-0", "FP32", [2, 2], [1.0, 2.0, 3.0, 4.0])
VALUE = In("value", "FP64", [1], [1.0])
BAD: dict[str, tuple[Case, str]] = {
    "unknown model": (Case("nosuch", PAIR), "NOT_FOUND"),
    "no model": (Case("%20", PAIR), "NOT_FOUND"),
    "unknown version": (Case("pair", PAIR, version="99"), "NOT_FOUND"),
    "no inputs": (Case("pair", []), "INVALID_ARGUMENT"),
    "missing input": (Case("pair", PAIR[:1]), "INVALID_ARGUMENT"),
    "unknown input": (Case("pair", [*PAIR, In("middle", "FP32", [1], [0.0])]), "INVALID_ARGUMENT"),
    "input twice": (Case("pair", [*PAIR, PAIR[0]]), "INVALID_ARGUMENT"),
    "nameless input": (Case("pair", [In("", "FP32", [1], [0.0])]), "INVALID_ARGUMENT"),
    "other rank": (Case("identity", [In("input-0", "FP32", [4], MATRIX.data)]), "INVALID_ARGUMENT"),
    "too few elements": (Case("identity", [In("input-0", "FP32", [2, 3], MATRIX.data)]), "INVALID_ARGUMENT"),
    "too many elements": (Case("identity", [In("input-0", "FP32", [1, 2], MATRIX.data)]), "INVALID_ARGUMENT"),
    "elements for none": (Case("identity", [In("input-0", "FP32", [0, 2], MATRIX.data)]), "INVALID_ARGUMENT"),
    "no elements": (Case("identity", [In("input-0", "FP32", [2, 2], [])]), "INVALID_ARGUMENT"),
    "negative dimension": (Case("identity", [In("input-0", "FP32", [-1, 2], MATRIX.data)]), "INVALID_ARGUMENT"),
    "two negative dimensions": (Case("identity", [In("input-0", "FP32", [-2, -2], MATRIX.data)]), "INVALID_ARGUMENT"),
    "overflowing shape": (Case("identity", [In("input-0", "FP32", [2**62, 2**62], [1.0])]), "INVALID_ARGUMENT"),
    "overflow to zero": (Case("identity", [In("input-0", "FP32", [2**32, 2**32], [])]), "INVALID_ARGUMENT"),
    "33 dimensions": (Case("echo", [In("x", "FP32", [1] * 33, [1.0])]), "INVALID_ARGUMENT"),
    "unknown datatype": (Case("echo", [In("x", "FP8", [1], [1.0])]), "INVALID_ARGUMENT"),
    "lower-case datatype": (Case("echo", [In("x", "fp32", [1], [1.0])]), "INVALID_ARGUMENT"),
    "no datatype": (Case("echo", [In("x", "", [1], [1.0])]), "INVALID_ARGUMENT"),
    "another datatype": (Case("pair", [PAIR[0], In("right", "BYTES", [1], [b"x"])]), "INVALID_ARGUMENT"),
    "does not fit the datatype": (Case("pair", [PAIR[0], In("right", "FP64", [3], [0.1] * 3)]), "INVALID_ARGUMENT"),
    "unknown output": (Case("pair", PAIR, outputs=["product"]), "INVALID_ARGUMENT"),
    "output twice": (Case("pair", PAIR, outputs=["sum", "sum"]), "INVALID_ARGUMENT"),
    "unknown parameter": (Case("params", [VALUE], parameters={"factr": 2.0}), "INVALID_ARGUMENT"),
    "parameter of a model without any": (Case("pair", PAIR, parameters={"top_k": 7}), "INVALID_ARGUMENT"),
    "parameter of another type": (Case("params", [VALUE], parameters={"factor": "two"}), "INVALID_ARGUMENT"),
    "negative timeout": (Case("pair", PAIR, parameters={"timeout": -1}), "INVALID_ARGUMENT"),
    "timeout that is no number": (Case("pair", PAIR, parameters={"timeout": "soon"}), "INVALID_ARGUMENT"),
    "invalid base64": (
        Case("echo", [In("x", "BYTES", [1], [b"!!"], {"content_type": "base64"})]), "INVALID_ARGUMENT",
    ),
    "classification": (Case("pair", PAIR, outputs=[("sum", {"classification": 2})]), "UNIMPLEMENTED"),
    "shared memory": (Case("pair", PAIR, outputs=[("sum", {"shared_memory_region": "x"})]), "UNIMPLEMENTED"),
    "the model's own error": (Case("pair", [PAIR[0], In("right", "FP32", [2], [1.0, 2.0])]), "INTERNAL"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_errors(shared_gateway: Gateway, name: str) -> None:
    case, code = BAD[name]
    assert everywhere(shared_gateway, case).code == code
