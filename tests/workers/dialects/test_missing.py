"""Missing values, columns and inputs, as clients say them: null, a parameter's text, nothing at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from modelhub.serving.protocol.signature import Field, Param, Signature, signature_from_mlmodel
from modelhub.serving.workers.dialects.table import DIALECTS
from modelhub.serving.workers.model.served import ServedModel
from support.files import column, keeping, send, tensor
from support.v2_client import binary_request


def v2(name: str, datatype: str, data: list[Any], shape: list[int] | None = None, **parameters: Any) -> dict[str, Any]:
    found = {"name": name, "datatype": datatype, "shape": shape or [len(data)], "data": data}
    return {**found, "parameters": parameters} if parameters else found


# ---- null, and a text that means it ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "value", "got"),
    [
        ("string", "a", "a"),
        ("binary", "a", b"a"),
        ("datetime", "2024-01-31", pd.Timestamp("2024-01-31")),
        ("any", '{"b": 1}', {"b": 1}),
    ],
)
@pytest.mark.parametrize("required", [True, False])
def test_null_in_bytes_is_a_missing_value_of_a_column(kind: str, value: Any, got: Any, required: bool) -> None:
    model, kept = keeping(column(kind, "s", required=required))
    for shape in ([2], [2, 1]):
        status, answer = send(model, {"inputs": [v2("s", "BYTES", [value, None], shape)]})
        assert status == 200, answer
        first, second = kept.got["s"].tolist()
        assert (first, pd.isna(second)) == (got, True)
    assert send(model, {"inputs": [v2("s", "BYTES", [None], content_type=None)]})[0] == 200


def test_null_among_base64_is_missing() -> None:
    model, kept = keeping(column("binary", "s"))
    assert send(model, {"inputs": [v2("s", "BYTES", ["YQ==", None], content_type="base64")]})[0] == 200
    assert kept.got["s"].tolist() == [b"a", None]


def test_null_without_a_signature_is_missing() -> None:
    model, kept = keeping()
    assert send(model, {"inputs": [v2("a", "BYTES", ["x", None]), v2("b", "FP64", [1, None])]})[0] == 200
    assert kept.got["a"].isna().tolist() == [False, True]


def test_null_in_a_tensor_of_text_is_refused() -> None:
    status, answer = send(keeping(tensor("str", -1))[0], {"inputs": [v2("input-0", "BYTES", ["a", None])]})
    assert (status, "must be strings, not null" in answer["error"]) == (0, True)


@pytest.mark.parametrize("sign", ["", "NA", "ü"])
def test_binary_data_say_by_a_parameter_what_means_missing(sign: str) -> None:
    """Binary data and gRPC have no null; without the parameter every text is itself."""
    model, kept = keeping(column("string", "s", required=False))
    for parameters, expected in (({"missing": sign}, [None, "a"]), ({}, [sign, "a"])):
        body, size = binary_request(v2("s", "BYTES", [sign.encode(), b"a"], **parameters))
        assert send(model, body, "application/octet-stream", json_size=size)[0] == 200
        assert [None if pd.isna(each) else each for each in kept.got["s"]] == expected
        assert send(model, {"inputs": [v2("s", "BYTES", [sign, "a"], **parameters)]})[0] == 200
        assert [None if pd.isna(each) else each for each in kept.got["s"]] == expected


@pytest.mark.parametrize(("datatype", "sign"), [("FP64", "x"), ("BYTES", 5)])
def test_the_parameter_is_the_text_of_bytes(datatype: str, sign: Any) -> None:
    model, _ = keeping(column("string" if datatype == "BYTES" else "double", "s"))
    data: list[Any] = ["a"] if datatype == "BYTES" else [1]
    status, answer = send(model, {"inputs": [v2("s", datatype, data, missing=sign)]})
    assert (status, "the parameter 'missing'" in answer["error"]) == (0, True)


@pytest.mark.parametrize(("kind", "datatype"), [("long", "INT64"), ("integer", "INT32"), ("boolean", "BOOL")])
def test_an_optional_column_of_nulls_is_left_out_in_v2_too(kind: str, datatype: str) -> None:
    model, kept = keeping(column("double", "x"), column(kind, "n", required=False))
    body = {"inputs": [v2("x", "FP64", [1, 2]), v2("n", datatype, [None, None])]}
    assert send(model, body)[0] == 200
    assert list(kept.got.columns) == ["x"]
    status, answer = send(keeping(column(kind, "n"))[0], {"inputs": [v2("n", datatype, [None])]})
    assert (status, "not null" in answer["error"]) == (0, True)


# ---- no columns, no inputs -------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", [["double"], ["long"], ["string", "boolean"]])
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"data": [{}, {}]}, "infer"),
        ({"data": [{"c0": None}, {}]}, "infer"),
        ({"instances": [{}, {}]}, "v1_predict"),
    ],
)
def test_rows_of_optional_columns_that_are_not_given_are_rows(kinds: list[str], body: Any, kind: str) -> None:
    columns = [column(each, f"c{at}", required=False) for at, each in enumerate(kinds)]
    model, kept = keeping(*columns)
    status, answer = send(model, body, kind=kind)
    assert status == 200, answer
    assert isinstance(kept.got, pd.DataFrame)
    if kinds != ["long"]:  # which MLflow gives no rows where nothing of it can be missing, but see test_mlflow
        assert len(kept.got) == 2


def only_params() -> tuple[ServedModel, Any]:
    _, kept = keeping()
    return ServedModel(kept, "own", "1", Signature([], [], [Param("n", "long", 1)]), dialects=DIALECTS), kept


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": [], "parameters": {"n": 3}},
        {"params": {"n": 3}},
        {"parameters": {"n": 3}},
    ],
)
def test_a_model_of_parameters_alone_needs_no_inputs(body: dict[str, Any]) -> None:
    model, kept = only_params()
    status, answer = send(model, body)
    assert (status, kept.params) == (200, {"n": 3}), answer
    assert kept.got is None
    if "inputs" in body:
        raw, size = binary_request(parameters={"n": 3})
        assert send(model, raw, "application/octet-stream", json_size=size)[0] == 200
        assert answer["outputs"][0]["name"] == "output-0"


def test_a_model_of_parameters_alone_takes_nothing_else() -> None:
    model, _ = only_params()
    assert "nothing but parameters" in str(send(model, {"params": {"n": 3}, "data": [1]}))
    assert "at least one tensor" in str(send(keeping(column("double", "x"))[0], {"inputs": []}))


# ---- shapes, labels and objects --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "sent", "got"),
    [((-1,), [2, 1], (2,)), ((-1, 1), [2], (2, 1)), ((-1, 2), [1, 2, 1], (1, 2)), ((-1, -1), [2, 1], (2, 1))],
)
def test_a_last_dimension_of_one_may_be_there_or_not(declared: tuple[int, ...], sent: list[int], got: Any) -> None:
    """As MLServer's codecs write a column: [n, 1]."""
    for dtype, datatype, data in (("float64", "FP64", [1, 2]), ("str", "BYTES", ["a", "b"])):
        model, kept = keeping(tensor(dtype, *declared))
        status, answer = send(model, {"inputs": [v2("input-0", datatype, data, sent)]})
        assert status == 200, answer
        assert (kept.got.shape, kept.got.ravel().tolist()) == (got, data)


@pytest.mark.parametrize(
    ("labels", "own"),
    [([0, 1], [0, 1]), (["a", 1], ["a", 1]), ([1.5, 2], [1.5, 2]), ([["a", 1], ["b", 2]], [("a", 1), ("b", 2)])],
)
def test_a_model_gets_its_own_labels_of_columns(labels: list[Any], own: list[Any]) -> None:
    section = str([{"type": "double", "name": label} for label in labels]).replace("'", '"')
    signature = signature_from_mlmodel({"signature": {"inputs": section}})
    assert signature is not None
    _, kept = keeping()
    model = ServedModel(kept, "own", "1", signature, dialects=DIALECTS)
    names = [str(label) for label in labels]
    values = dict(zip(names, (1.0, 2.0), strict=True))
    for body, kind in (
        ({"inputs": [v2(name, "FP64", [value]) for name, value in values.items()]}, "infer"),
        ({"data": [[1, 2]]}, "infer"),
        ({"data": [values]}, "infer"),
        ({"columns": names[::-1], "data": [[2, 1]]}, "infer"),
        ({"instances": [values]}, "v1_predict"),
        ({"instances": [[1, 2]]}, "v1_predict"),
    ):
        status, answer = send(model, body, kind=kind)
        assert status == 200, answer
        assert list(kept.got.columns) == own
        assert kept.got.iloc[0].tolist() == [1, 2]


def test_tensors_of_objects_get_numbers_and_texts_as_they_are() -> None:
    model, kept = keeping(tensor("object", -1, 2))
    for body, kind in (
        ({"data": [["a", 1.5], [None, True]]}, "infer"),
        ({"instances": [["a", 1.5], [None, True]]}, "v1_predict"),
    ):
        assert send(model, body, kind=kind)[0] == 200
        assert kept.got.dtype == np.dtype(object)
        assert kept.got.tolist() == [["a", 1.5], [None, True]]
    assert send(model, {"data": [["a", 1.5], ["b"]]})[0] == 400


def test_a_field_knows_its_own_label() -> None:
    assert Field("0", "column", "double", "FP64", (-1,), label=0).label == 0


@pytest.mark.parametrize("kind", ["", "text", "list"])
def test_texts_by_v1_are_the_list_of_texts_where_nothing_is_said_of_inputs(kind: str) -> None:
    _, kept = keeping()
    model = ServedModel(kept, "own", "1", Signature(example_kind=kind), dialects=DIALECTS)
    for texts in (["a text"], ["a", "b"]):
        assert send(model, {"instances": texts}, kind="v1_predict")[0] == 200
        assert kept.got == texts
        assert send(model, {"text": texts})[0] == 200
        assert kept.got == texts
    model = ServedModel(kept, "own", "1", Signature(example_kind="table"), dialects=DIALECTS)
    assert send(model, {"instances": ["a text"]}, kind="v1_predict")[0] == 200
    assert isinstance(kept.got, pd.DataFrame)
