"""What is missing in a model's result, and floats of Python, as the signature's datatypes."""

from __future__ import annotations

import datetime
import decimal
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from modelhub.serving.protocol.errors import InvalidRequest
from modelhub.serving.protocol.signature import Field
from modelhub.serving.workers.convert.outputs import to_outputs
from modelhub.serving.workers.convert.plain import dumps
from modelhub.serving.workers.convert.tensors import to_output
from support.output_values import column, only

NAN = float("nan")

NUMBERS: list[
    tuple[str, str, Any, Any, str]
] = [  # a signature's type and datatype, a value, as JSON has it, pandas' type
    ("double", "FP64", 0.5, 0.5, "Float64"),
    ("long", "INT64", 7, 7, "Int64"),
    ("integer", "INT32", 7, 7, "Int32"),
    ("boolean", "BOOL", True, True, "boolean"),
    ("string", "BYTES", "big", "big", "string"),
    ("datetime", "BYTES", datetime.datetime(2024, 1, 31), "2024-01-31T00:00:00", "datetime64[ns]"),
]
HOLDERS: dict[str, Any] = {
    "list": lambda values: values,
    "object array": lambda values: np.array(values, dtype=object),
    "object series": lambda values: pd.Series(values, dtype=object),
    "series": pd.Series,
    "frame": lambda values: pd.DataFrame({"y": values}),
    "object frame": lambda values: pd.DataFrame({"y": values}, dtype=object),
    "records": lambda values: [{"y": value} for value in values],
    "NA": lambda values: pd.Series([pd.NA if value is None else value for value in values], dtype=object),
    "NaN": lambda values: [NAN if value is None else value for value in values],
    "dict": lambda values: {"y": values},
}


@pytest.mark.parametrize("holder", [*HOLDERS, "pandas' own"])
@pytest.mark.parametrize(("kind", "datatype", "value", "said", "own"), NUMBERS)
def test_missing_values_do_not_change_the_datatype_that_is_declared(
    holder: str, kind: str, datatype: str, value: Any, said: Any, own: str
) -> None:
    """Some rows missing, all of them, one row and two: what the metadata say."""
    hold = HOLDERS.get(holder, lambda values: pd.Series(values, dtype=own))
    gone = "" if datatype == "BYTES" else None
    for rows in ([None], [value], [None, None], [None, value], [value, None], [value, value]):
        (found,) = to_outputs(hold(rows), [column("y", kind, datatype)])
        assert (found.name, found.datatype, found.array.shape) == ("y", datatype, (len(rows),))
        written = to_output("y", found.datatype, found.array, binary=False)
        data = json.loads(dumps(written.data))
        if kind == "datetime":
            data = [each.removesuffix(".000000000").removesuffix(".000000") for each in data]
        assert data == [gone if each is None else said for each in rows]


FP32 = column("y", "float", "FP32")


@pytest.mark.parametrize(
    "hold", [HOLDERS[name] for name in ("list", "object array", "object series", "records", "dict")]
)
def test_floats_of_python_are_what_the_signature_declares(hold: Any) -> None:
    """They have no width of their own: 0.1, and what `tolist` makes of a float32."""
    for rows in ([0.1], [0.1, None], [None, 0.1], [1, 0.1], [NAN, float("inf")], [float(np.float32(0.1)), 2.5]):
        (found,) = to_outputs(hold(rows), [FP32])
        expected = [NAN if each is None else float(np.float32(each)) for each in rows]
        assert found.datatype == "FP32"
        assert np.array_equal(found.array.tolist(), expected, equal_nan=True)
    assert json.loads(dumps(to_output("y", "FP32", to_outputs(hold([0.1]), [FP32])[0].array, binary=False).data)) == [
        0.1
    ]


def test_floats_of_python_in_other_places_and_of_other_widths() -> None:
    assert only(0.1, FP32)[:2] == ("FP32", [1])
    assert only([[0.1, 0.2], [0.3, 0.4]], Field("y", "tensor", "float32", "FP32", (-1, 2)))[:2] == ("FP32", [2, 2])
    assert only([decimal.Decimal("0.1")], FP32)[0] == "FP32"
    assert only([0.1], Field("y", "tensor", "float16", "FP16", (-1,)))[0] == "FP16"
    assert only([1e300, 0.5], FP32) == ("FP64", [2], [1e300, 0.5])  # beyond it


def test_floats_of_numpy_are_never_narrowed() -> None:
    assert only([None, None], FP32)[0] == "FP32"
    for value in (np.array([0.1]), [np.float64(0.1)], pd.Series([0.1]), pd.Series([0.1, None])):
        assert only(value, FP32)[0] == "FP64"
    assert only(pd.Series([None, 0.1], dtype="float32"), FP32)[0] == "FP32"


def test_what_is_not_declared_is_never_the_text_null() -> None:
    assert only([None]) == ("BYTES", [1], [""])
    assert only([None, None]) == ("BYTES", [2], ["", ""])
    assert only(pd.Series([None], dtype="string")) == ("BYTES", [1], [""])
    assert only(pd.Series([None, True], dtype="boolean")) == ("BOOL", [2], [None, True])
    assert only(pd.Series([None], dtype="boolean")) == ("BOOL", [1], [None])
    assert only([None, True]) == ("BOOL", [2], [None, True])
    datatype, _, data = only(pd.Series([None], dtype="Int64"))
    assert (datatype, data[0] != data[0]) == ("FP64", True)


@pytest.mark.parametrize("datatype", ["INT64", "BOOL"])
def test_what_binary_data_cannot_say_is_refused(datatype: str) -> None:
    (found,) = to_outputs([None, True if datatype == "BOOL" else 1], [column("y", "x", datatype)])
    with pytest.raises(InvalidRequest, match=f"'y' has missing values, which binary data of {datatype} cannot say"):
        to_output("y", found.datatype, found.array, binary=True)


def test_values_that_are_no_such_thing_stay_what_they_are() -> None:
    assert only([1.5, None], column("y", "long", "INT64"))[0] == "FP64"
    assert only([1, None], column("y", "string", "BYTES"))[0] == "FP64"
    assert only(["a", None], column("y", "double", "FP64")) == ("BYTES", [2], ["a", ""])
