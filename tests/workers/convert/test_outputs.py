"""Whatever a model returns, as named V2 outputs."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import fractions
import json
import pathlib
import types
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from modelhub.serving.protocol.errors import ModelError
from modelhub.serving.protocol.signature import Field
from modelhub.serving.workers.convert.outputs import to_outputs
from modelhub.serving.workers.convert.plain import dumps
from modelhub.serving.workers.convert.tensors import to_output
from support.output_values import column, only, outputs

NAN = float("nan")


@dataclasses.dataclass
class Point:
    x: int
    label: str


class Tensorlike:
    """As tensors of other libraries: only __array__, and a graph to be left behind."""

    dtype = "float32"

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.array([1.5, 2.5], dtype="f4")


VALUES: dict[str, tuple[Any, tuple[str, list[int], Any]]] = {
    "array": (np.arange(4, dtype="i2").reshape(2, 2), ("INT16", [2, 2], [[0, 1], [2, 3]])),
    "big-endian array": (np.array([1, 2], dtype=">f8"), ("FP64", [2], [1.0, 2.0])),
    "0-d array": (np.array(3, dtype="u1"), ("UINT8", [1], [3])),
    "numpy scalar": (np.float32(0.5), ("FP32", [1], [0.5])),
    "booleans": (np.array([True, False]), ("BOOL", [2], [True, False])),
    "half": (np.array([0.5], dtype="f2"), ("FP16", [1], [0.5])),
    "long double": (np.array([0.5], dtype=np.longdouble), ("FP64", [1], [0.5])),
    "int": (3, ("INT64", [1], [3])),
    "float": (0.5, ("FP64", [1], [0.5])),
    "bool": (True, ("BOOL", [1], [True])),
    "str": ("é", ("BYTES", [1], ["é"])),
    "bytes": (b"\xff", ("BYTES", [1], [b"\xff"])),
    "None": (None, ("BYTES", [1], [""])),
    "list of int": ([1, 2], ("INT64", [2], [1, 2])),
    "list of large int": ([1, 2**64 - 1], ("UINT64", [2], [1, 2**64 - 1])),
    "list of huge int": ([2**70], ("BYTES", [1], [str(2**70)])),
    "list of numbers": ([1, 2.5], ("FP64", [2], [1.0, 2.5])),
    "list of str": (["a", "b"], ("BYTES", [2], ["a", "b"])),
    "list of str and None": (["a", None], ("BYTES", [2], ["a", ""])),
    "list of numpy str": ([np.str_("a")], ("BYTES", [1], ["a"])),
    "list of numpy numbers": ([np.int32(1), np.int32(2)], ("INT32", [2], [1, 2])),
    "numpy and plain numbers": ([np.float64(1), 2], ("FP64", [2], [1.0, 2.0])),
    "nested list": ([[1, 2], [3, 4]], ("INT64", [2, 2], [[1, 2], [3, 4]])),
    "nested str": ([["a"], ["b"]], ("BYTES", [2, 1], [["a"], ["b"]])),
    "nested and empty": ([[], []], ("FP64", [2, 0], [[], []])),
    "list of arrays": ([np.zeros(2), np.ones(2)], ("FP64", [2, 2], [[0, 0], [1, 1]])),
    "ragged list": ([[1], [2, 3]], ("BYTES", [2], ["[1]", "[2,3]"])),
    "mixed list": ([1, "a", None], ("BYTES", [3], ["1", '"a"', "null"])),
    "objects": ([{"a": 1}, {"a": NAN}], ("BYTES", [2], ['{"a":1}', '{"a":null}'])),
    "lists of objects": ([[{"a": 1}], [{"a": 2}]], ("BYTES", [2], ['[{"a":1}]', '[{"a":2}]'])),
    "empty list": ([], ("FP64", [0], [])),
    "decimals": ([decimal.Decimal("1.5")], ("FP64", [1], [1.5])),
    "dates": ([datetime.date(2024, 1, 31), None], ("BYTES", [2], ["2024-01-31", ""])),
    "numpy str": (np.array(["a", "bc"]), ("BYTES", [2], ["a", "bc"])),
    "numpy bytes": (np.array([b"a", b"\xff"]), ("BYTES", [2], [b"a", b"\xff"])),
    "numpy objects": (np.array(["a", 1], dtype=object), ("BYTES", [2], ['"a"', "1"])),
    "object matrix": (np.array([["a"], ["b"]], dtype=object), ("BYTES", [2, 1], [["a"], ["b"]])),
    "datetimes": (
        np.array(["2024-01-31T12:00", "NaT"], dtype="datetime64[s]"),
        ("BYTES", [2], ["2024-01-31T12:00:00", ""]),
    ),
    "complex": (np.array([1 + 2j]), ("BYTES", [1], ["(1+2j)"])),
    "sparse": (scipy.sparse.csr_matrix([[0.0, 1.0]]), ("FP64", [1, 2], [[0.0, 1.0]])),
    "generator": ((each for each in [1, 2]), ("INT64", [2], [1, 2])),
    "tensor of another library": (Tensorlike(), ("FP32", [2], [1.5, 2.5])),
    "series": (pd.Series([1, 2]), ("INT64", [2], [1, 2])),
    "categorical": (pd.Series(["a", None], dtype="category"), ("BYTES", [2], ["a", ""])),
    "categorical numbers": (pd.Series([3, 4], dtype="category"), ("INT64", [2], [3, 4])),
    "nullable": (pd.Series([1, 2], dtype="Int32"), ("INT32", [2], [1, 2])),
    "pandas text": (pd.Series(["a", None], dtype="string"), ("BYTES", [2], ["a", ""])),
    "time zone": (pd.Series(pd.to_datetime(["2024-01-31T12:00+01:00"])), ("BYTES", [1], ["2024-01-31T12:00:00+01:00"])),
    "timestamp": (pd.Timestamp("2024-01-31T12:00", tz="UTC"), ("BYTES", [1], ["2024-01-31T12:00:00+00:00"])),
    "missing timestamp": (pd.NaT, ("BYTES", [1], [""])),
    "numpy datetime": (np.datetime64("2024-01-31T12:00"), ("BYTES", [1], ["2024-01-31T12:00"])),
    "missing numpy datetime": (np.datetime64("NaT"), ("BYTES", [1], [""])),
    "timedeltas": ([datetime.timedelta(1), None], ("BYTES", [2], ["1 day, 0:00:00", ""])),
    "pandas timedelta": (pd.Timedelta("1h"), ("BYTES", [1], ["1:00:00"])),
    "periods": (pd.Series(pd.PeriodIndex(["2024-01", None], freq="M")), ("BYTES", [2], ["2024-01", ""])),
    "intervals": (pd.Series(pd.interval_range(0, 1)), ("BYTES", [1], ["(0, 1]"])),
    "masked": (np.ma.array(["a", "b"], mask=[False, True]), ("BYTES", [2], ["a", ""])),
    "nothing masked": (np.ma.array([1, 2], dtype="i2"), ("INT16", [2], [1, 2])),
    "array of dicts": (np.array([{"a": {1}}], dtype=object), ("BYTES", [1], ['{"a":[1]}'])),
}


@pytest.mark.parametrize(("result", "expected"), VALUES.values(), ids=VALUES.keys())
def test_values(result: Any, expected: Any) -> None:
    assert only(result) == expected


def test_nullable_numbers_with_gaps_are_nan() -> None:
    datatype, shape, data = only(pd.Series([1, None], dtype="Int64"))
    assert (datatype, shape, data[0]) == ("FP64", [2], 1.0)
    assert data[1] != data[1]


def test_data_frame() -> None:
    frame = pd.DataFrame({"label": ["a", "b"], "p": np.array([0.5, NAN], "f4"), 3: [1, 2], "rows": [[1], [2, 3]]})
    found = outputs(frame)
    assert list(found) == ["label", "p", "3", "rows"]
    assert found["label"] == ("BYTES", [2], ["a", "b"])
    assert found["p"][:2] == ("FP32", [2])
    assert found["3"] == ("INT64", [2], [1, 2])
    assert found["rows"] == ("BYTES", [2], ["[1]", "[2,3]"])


def test_an_empty_data_frame() -> None:
    assert outputs(pd.DataFrame({"a": np.zeros(0)})) == {"a": ("FP64", [0], [])}
    assert outputs(pd.DataFrame()) == {}


def test_equal_column_names() -> None:
    assert list(outputs(pd.DataFrame([[1, 2, 3]], columns=["a", "a", "a-1"]))) == ["a", "a-1", "a-1-1"]


def test_dict() -> None:
    result = {"a": np.zeros((2, 1)), "b": [1, 2], "c": "text", "d": None, "e": {"x": [1]}, 5: 1.5}
    assert outputs(result) == {
        "a": ("FP64", [2, 1], [[0.0], [0.0]]),
        "b": ("INT64", [2], [1, 2]),
        "c": ("BYTES", [1], ["text"]),
        "d": ("BYTES", [1], [""]),
        "e": ("BYTES", [1], ['{"x":[1]}']),
        "5": ("FP64", [1], [1.5]),
    }


def test_dataclass() -> None:
    assert outputs(Point(1, "a")) == {"x": ("INT64", [1], [1]), "label": ("BYTES", [1], ["a"])}
    assert json.loads(only([Point(1, "a")])[2][0]) == {"x": 1, "label": "a"}


def test_tuple_of_arrays() -> None:
    assert list(outputs((np.zeros(1), np.ones(2)))) == ["output-0", "output-1"]


def test_structured_array() -> None:
    array = np.array([(1, 0.5)], dtype=[("a", "i4"), ("b", "f8")])
    assert outputs(array) == {"a": ("INT32", [1], [1]), "b": ("FP64", [1], [0.5])}


def test_series_are_named_by_themselves_without_a_signature() -> None:
    assert list(outputs(pd.Series([1], name="y"))) == ["y"]


# ---- with a signature ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "kind", "datatype", "expected"),
    [
        (np.array([1, 2], "i4"), "long", "INT64", "INT64"),
        (np.array([1, 2], "i8"), "integer", "INT32", "INT32"),
        (np.array([1, 2**40], "i8"), "integer", "INT32", "INT64"),
        ([1, 0], "double", "FP64", "FP64"),
        (np.array([0.5], "f4"), "double", "FP64", "FP64"),
        (np.array([0.5], "f8"), "float", "FP32", "FP64"),  # never by value: 0.1 would not survive
        (np.array([1.0]), "long", "INT64", "FP64"),
        (["a"], "double", "FP64", "BYTES"),
        ([1], "string", "BYTES", "INT64"),
        ([], "string", "BYTES", "BYTES"),
        (np.zeros((0, 1)), "long", "INT64", "INT64"),
    ],
)
def test_datatypes_of_the_signature(result: Any, kind: str, datatype: str, expected: str) -> None:
    assert only(result, column("y", kind, datatype))[0] == expected


def test_names_of_the_signature() -> None:
    y, z = column("y", "double", "FP64"), column("z", "double", "FP64")
    assert list(outputs(pd.Series([1], name="other"), y)) == ["y"]
    assert list(outputs(pd.DataFrame({0: [1.0]}), y)) == ["y"]
    assert list(outputs(pd.DataFrame([[1.0, 2.0]]), y, z)) == ["y", "z"]
    assert list(outputs(pd.DataFrame({"z": [1.0], "y": [2.0]}), y, z)) == ["z", "y"]
    assert list(outputs((np.zeros(1), np.ones(2)), y, z)) == ["y", "z"]
    assert outputs(np.array([[1.0, 2.0], [3.0, 4.0]]), y, z) == {
        "y": ("FP64", [2], [1.0, 3.0]),
        "z": ("FP64", [2], [2.0, 4.0]),
    }


def test_records_that_are_the_signatures_columns() -> None:
    fields = column("label", "string", "BYTES"), column("p", "double", "FP64")
    assert outputs([{"p": 0.5, "label": "a"}, {"p": 1, "label": "b"}], *fields) == {
        "label": ("BYTES", [2], ["a", "b"]),
        "p": ("FP64", [2], [0.5, 1.0]),
    }


def test_json_columns_of_the_signature() -> None:
    field = column("output-0", "array", "BYTES")
    assert only([[1, 2], [3, 4]], field) == ("BYTES", [2], ["[1,2]", "[3,4]"])
    assert only(np.array([[1, 2]]), field) == ("BYTES", [1], ["[1,2]"])
    assert only("a", field) == ("BYTES", [1], ['"a"'])


# ---- what the metadata promise -------------------------------------------------------------------


def nameless(kind: str, datatype: str) -> Field:
    return Field("output-0", "column", kind, datatype, (-1,), named=False)


def test_one_nameless_output_is_the_only_member() -> None:
    field = nameless("double", "FP64")
    for result in ({"yhat": np.ones(2)}, pd.DataFrame({"yhat": [1.0, 1.0]}), {"yhat": [1, 1]}):
        assert outputs(result, field) == {"output-0": ("FP64", [2], [1.0, 1.0])}
    assert list(outputs({"a": [1.0], "b": [2.0]}, field)) == ["a", "b"]


@pytest.mark.parametrize("kind", ["object", "map", "any", "array"])
def test_one_nameless_object_is_json(kind: str) -> None:
    field = nameless(kind, "BYTES")
    assert only({"a": 1, "b": "x"}, field) == ("BYTES", [1], ['{"a":1,"b":"x"}'])
    assert only({"a": np.array([0.5])}, field) == ("BYTES", [1], ['{"a":[0.5]}'])
    assert only([{"a": 1}, {"a": 2}], field) == ("BYTES", [2], ['{"a":1}', '{"a":2}'])
    assert only([{}, {}], field) == ("BYTES", [2], ["{}", "{}"])
    assert only(pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), field)[2][0] == '{"a":1,"b":"x"}'


@pytest.mark.parametrize(
    ("kind", "datatype", "said"),
    [("string", "BYTES", ""), ("double", "FP64", None), ("long", "INT64", None), ("boolean", "BOOL", None)],
)
@pytest.mark.parametrize("make", [dict, pd.DataFrame, lambda found: [{"y": each} for each in found["y"]]])
def test_an_optional_output_that_is_not_there_is_missing(make: Any, kind: str, datatype: str, said: Any) -> None:
    y, note = column("y", "double", "FP64"), Field("note", "column", kind, datatype, (-1,), required=False)
    first, second = to_outputs(make({"y": [1.0, 2.0]}), [y, note])
    assert (first.name, first.array.tolist()) == ("y", [1.0, 2.0])
    assert (second.name, second.datatype, second.array.shape) == ("note", datatype, (2,))
    assert json.loads(dumps(to_output("note", datatype, second.array, binary=False).data)) == [said, said]


@pytest.mark.parametrize("make", [dict, pd.DataFrame])
def test_an_output_that_is_required_is_not_made_up(make: Any) -> None:
    y = column("y", "double", "FP64")
    assert list(outputs(make({"y": [1.0, 2.0]}), y, column("z", "double", "FP64"))) == ["y"]


def test_names_go_by_position_only_where_the_types_fit() -> None:
    label, p = column("label", "string", "BYTES"), column("p", "double", "FP64")
    for make in (pd.DataFrame, lambda rows: tuple(np.array(each, dtype=object) for each in zip(*rows, strict=True))):
        assert list(outputs(make([["a", 0.5], ["b", 0.1]]), label, p)) == ["label", "p"]
        assert not {"label", "p"} & outputs(make([[0.5, "a"], [0.1, "b"]]), label, p).keys()
    assert list(outputs(np.ones((3, 2)), label, p)) == ["output-0"]
    assert list(outputs(pd.DataFrame([[None, 0.5]]), label, p)) == ["label", "p"]


# ---- the same on all routes ----------------------------------------------------------------------

Label = collections.namedtuple("Label", "name score")
MOMENT = pd.Timestamp("2024-01-31T12:00:00")
NESTED: dict[str, tuple[Any, Any]] = {
    "named tuple": (Label("a", 0.5), ["a", 0.5]),
    "deque": (collections.deque([{"a": 1}]), [{"a": 1}]),
    "mapping": (collections.UserDict(a=Label("b", 1)), {"a": ["b", 1]}),
    "proxy": (types.MappingProxyType({"a": 1}), {"a": 1}),
    "user list": (collections.UserList([1, "a"]), [1, "a"]),
    "set": ({"a"}, ["a"]),
    "timestamps": ({"at": MOMENT, "on": MOMENT.date()}, {"at": "2024-01-31T12:00:00", "on": "2024-01-31"}),
    "durations": (
        {"a": pd.Timedelta("1D"), "b": np.timedelta64(1, "D")},
        {"a": "1 day, 0:00:00", "b": "1 day, 0:00:00"},
    ),
    "large integer": ({"a": 2**70, "b": [NAN, -(2**70)]}, {"a": 2**70, "b": [None, -(2**70)]}),
    "large in an array": ({"a": np.array([2**70], dtype=object)}, {"a": [2**70]}),
}


@pytest.mark.parametrize("name", NESTED)
def test_what_json_rows_say_is_what_the_other_dialects_say(name: str) -> None:
    value, said = NESTED[name]
    assert json.loads(dumps([value])) == [said]
    row = only([value, 1 if isinstance(said, list) else "x"])[2][0]
    assert json.loads(row) == said
    assert json.loads(only([value], column("y", "any", "BYTES"))[2][0]) == said


@pytest.mark.parametrize("value", [fractions.Fraction(1, 2), pathlib.Path("a"), object(), len, Label])
def test_what_has_no_json_is_the_models_mistake_and_named(value: Any) -> None:
    for ask in (dumps, to_outputs):
        with pytest.raises(ModelError, match=type(value).__name__):
            ask([value])
        with pytest.raises(ModelError, match=type(value).__name__):
            ask({"a": [value]})


def test_an_answer_nested_too_deep_is_the_models_mistake() -> None:
    deep: Any = []
    for _ in range(2000):
        deep = [deep]
    with pytest.raises(ModelError, match="list"):
        to_outputs([{"a": deep}])
