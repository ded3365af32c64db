"""ModelHub's own form end to end: the fields of a request to what the model gets, and its result to an answer."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from modelhub.serving.protocol.errors import BY_CODE, InvalidRequest
from modelhub.serving.protocol.messages import InferRequest
from modelhub.serving.protocol.statuses import STATUSES
from modelhub.serving.workers.dialects.legacy import legacy_failure
from modelhub.serving.workers.model.served import ServedModel
from support.files import column, keeping, send, tensor

IRIS = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
Served = Callable[[str], ServedModel]

# ---- real models ---------------------------------------------------------------------------------


def test_records(served: Served) -> None:
    assert send(served("iris"), {"data": [IRIS, IRIS]}) == (200, {"statusCode": 200, "data": [0, 0]})
    assert send(served("iris"), {"data": IRIS}) == (200, {"statusCode": 200, "data": [0]})


def test_csv(served: Served) -> None:
    body = b"petal_width,extra,sepal_length,sepal_width,petal_length\n0.2,x,5.1,3.5,1.4\n"
    assert send(served("iris"), body, "text/csv") == (200, {"statusCode": 200, "data": [0]})


def test_text(served: Served) -> None:
    status, answer = send(served("sentiment"), {"text": "a wonderful day"})
    assert (status, answer["statusCode"], answer["data"][0]["label"]) == (200, 200, "positive")
    assert len(send(served("sentiment"), {"text": ["good", "bad"]})[1]["data"]) == 2
    assert send(served("sentiment"), b"a terrible day", "text/plain")[1]["data"][0]["label"] == "negative"


def test_params(served: Served) -> None:
    ask = {"data": [{"value": 2}], "params": {"factor": 3.0, "suffix": "!"}}
    assert send(served("params"), ask)[1]["data"] == [{"value": 6.0, "label": "6!"}]
    status, answer = send(served("params"), {**ask, "params": {"factr": 1}})
    assert (status, answer["statusCode"]) == (400, 400)
    assert "did you mean 'factor'" in answer["message"]
    assert answer["error"] == answer["message"]


def test_v2_is_still_v2(served: Served) -> None:
    inputs = [{"name": name, "datatype": "FP64", "shape": [1], "data": [value]} for name, value in IRIS.items()]
    assert send(served("iris"), {"inputs": inputs})[1]["outputs"][0]["data"] == [0]
    assert send(served("iris"), {"inputs": inputs}, query={"inference_type": "v2"})[1]["model_name"] == "iris"


# ---- what the model gets --------------------------------------------------------------------------


def test_records_in_the_signatures_order_and_types() -> None:
    model, kept = keeping(
        column("double", "d"),
        column("long", "n"),
        column("string", "s"),
        column("boolean", "b"),
        column("datetime", "t"),
        column("binary", "raw"),
        column("object", "o"),
        column("float", "optional", required=False),
    )
    record = {
        "o": {"k": [1]},
        "s": "01",
        "raw": base64.b64encode(b"\0\1").decode(),
        "n": 3.0,
        "d": 1,
        "b": True,
        "t": "2024-01-31T12:00:00Z",
        "unknown": 1,
    }
    status, answer = send(model, {"data": [record, {**record, "d": None, "s": None}]})
    assert status == 200, answer
    frame = kept.got
    assert [str(each) for each in frame.dtypes] == [
        "float64",
        "int64",
        "object",
        "bool",
        "datetime64[ns]",
        "object",
        "object",
    ] or str(frame.dtypes["s"]) == "str"
    assert list(frame.columns) == ["d", "n", "s", "b", "t", "raw", "o"]
    first = frame.iloc[0]
    assert (first["d"], first["n"], first["s"], first["raw"], first["o"]) == (1.0, 3, "01", b"\0\1", {"k": [1]})
    assert first["t"] == pd.Timestamp("2024-01-31T12:00:00")
    assert np.isnan(frame["d"][1])
    assert pd.isna(frame["s"][1])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n": "3"}, "'n' is INT64"),
        ({"n": 3.5}, "3.5 is not a whole number"),
        ({"n": 1e300}, "beyond the range"),
        ({"s": 5}, "takes text (string), not a number"),
        ({"t": "yesterday"}, "ISO 8601"),
        ({"raw": "???"}, "not valid base64"),
        ({"raw": 5}, "base64 text, not a number"),
    ],
)
def test_records_of_the_wrong_type(changes: dict[str, Any], words: str) -> None:
    model, _ = keeping(column("long", "n"), column("string", "s"), column("datetime", "t"), column("binary", "raw"))
    status, answer = send(model, {"data": {"n": 1, "s": "a", "t": "2024-01-01", "raw": "AA==", **changes}})
    assert status == answer["statusCode"] == 400
    assert words in answer["message"]


@pytest.mark.parametrize("data", [[], {}, [[]], [1, {"a": 1}], [[1], {"a": 1}], "x", 5, True, [None], [[1, 2]]])
def test_tables_that_are_none(data: Any) -> None:
    model, _ = keeping(column("long", "a"))
    assert send(model, {"data": data})[0] == 400


def test_rows_for_tensors() -> None:
    model, kept = keeping(tensor("float32", -1, 2))
    for data in ([[1, 2], [3, 4]], [{"a": 1, "b": 2}, {"b": 4, "a": 3}]):
        assert send(model, {"data": data})[0] == 200
        np.testing.assert_array_equal(kept.got, np.array([[1, 2], [3, 4]], "f4"), strict=True)
    assert send(model, {"data": [[1, 2, 3]]})[0] == 400
    assert send(model, {"data": [[1, 2], [3]]})[0] == 400
    model, kept = keeping(tensor("float32", -1, name="x"), tensor("int64", -1, 2, name="y"))
    assert send(model, {"data": [{"x": 1, "y": [1, 2]}, {"x": 2, "y": [3, 4]}]})[0] == 200
    assert kept.got["y"].tolist() == [[1, 2], [3, 4]]
    assert send(model, {"data": [{"x": 1}]})[0] == 400


def test_text_to_where_the_signature_takes_it() -> None:
    for inputs, got in (
        ([column("string")], lambda frame: frame.iloc[:, 0].tolist()),
        ([column("string", "prompt")], lambda frame: frame["prompt"].tolist()),
        ([column("string", "other"), column("string", "text")], lambda frame: frame["text"].tolist()),
        ([tensor("str", -1)], lambda array: array.tolist()),
        ([tensor("object", -1, 1)], lambda array: array.ravel().tolist()),
    ):
        model, kept = keeping(*inputs)
        beside = {"other": "beside"} if len(inputs) > 1 else {}
        status, answer = send(model, {"text": "grüß", **beside})
        assert status == 200, answer
        assert got(kept.got) == ["grüß"]
    model, kept = keeping()
    send(model, {"text": "x"})
    assert kept.got == "x"
    send(model, {"text": ["x", "y"]})
    assert kept.got == ["x", "y"]


def test_text_where_it_does_not_fit() -> None:
    for inputs, words in (
        ([column("double", "d")], "takes no text: its inputs are d (double)"),
        ([column("string", "a"), column("string", "b")], "several inputs that take text"),
        ([column("string", "text"), column("long", "n")], "takes 'n' too"),
    ):
        status, answer = send(keeping(*inputs)[0], {"text": "x"})
        assert status == 400
        assert words in answer["message"]
    assert send(keeping()[0], {"text": 5})[0] == 400
    assert send(keeping()[0], {"text": []})[0] == 400


def test_other_inputs_come_from_fields_of_their_names() -> None:
    model, kept = keeping(column("string", "text"), column("long", "n"))
    assert send(model, {"text": ["a", "b"], "n": 3})[0] == 200
    assert kept.got.to_dict("list") == {"text": ["a", "b"], "n": [3, 3]}


def test_records_without_a_signature() -> None:
    model, kept = keeping()
    send(model, {"data": [{"a": 1, "b": "x"}]})
    assert kept.got.to_dict("records") == [{"a": 1, "b": "x"}]


def test_bytes_of_no_known_kind_for_a_model_that_takes_bytes() -> None:
    model, kept = keeping(column("binary", "raw"))
    assert send(model, b"\0\1", "application/octet-stream")[0] == 200
    assert kept.got["raw"].tolist() == [b"\0\1"]
    status, answer = send(keeping(column("double"))[0], b"\0\1", "application/octet-stream")
    assert status == 400
    assert "neither an image nor a PDF" in answer["message"]


@pytest.mark.parametrize(
    ("body", "content_type", "words"),
    [
        (b"x,y", "text/csv", "no rows (curl keeps lines with --data-binary, not -d)"),
        (b"x,y\n1,2", "application/x-www-form-urlencoded", "by Content-Type (text/csv, …)"),
        (b'[{"x": 1}]', "application/x-www-form-urlencoded", 'a table is {"data": […]}'),
        (b'[{"x": 1}]', "application/json", "a JSON object with one of the fields text, data"),
        ({"x": 1}, "", "none of the fields text, data, image, images, pdf_file, byte_stream, inputs; its fields: x"),
        ({"instances": [1]}, "", "; instances is for POST /v1/models/{model}:predict"),
        ({"dataframe_split": {}}, "", "; dataframe_split is for POST /models/{model}/invocations"),
        ({"inputs": [], "params": {"factor": 1}}, "", 'parameters go into "parameters"'),
    ],
)
def test_mistakes_that_name_the_next_step(body: Any, content_type: str, words: str) -> None:
    status, answer = send(keeping(column("long", "x"))[0], body, content_type)
    assert status in (0, 400)  # in V2's form, or in this one
    assert words in answer["error"]


# ---- which form an error takes ----------------------------------------------------------------------


def test_failures_have_the_status_in_them() -> None:
    def broken(data: Any, params: Any = None) -> Any:
        raise RuntimeError("out of luck")

    model, kept = keeping(column("string", "text"))
    kept.predict = broken  # type: ignore[method-assign]
    status, answer = send(model, {"text": "x"})
    assert status == 500
    assert answer == {"statusCode": 500, "message": "RuntimeError: out of luck", "error": "RuntimeError: out of luck"}
    assert send(model, b"<a/>", "application/xml")[0] == 415


def test_ambiguous_legacy_requests() -> None:
    status, answer = send(keeping()[0], {"text": "x", "image": "AAAA"})
    assert status == answer["statusCode"] == 400
    assert "it has the fields text, image" in answer["error"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "not valid JSON"),
        (b"", "empty"),
        ([], "JSON object"),
        ({}, "fields: none"),
        ({"txt": "x"}, "fields: txt"),
        ({"inputs": [], "text": "x"}, "ambiguous: it has the fields inputs, text"),
    ],
)
def test_what_could_be_anything_is_a_v2_error(body: Any, words: str) -> None:
    status, answer = send(keeping()[0], body)
    assert status == 0
    assert answer["code"] == "invalid_request"
    assert words in answer["error"]


@pytest.mark.parametrize("kind", ["long", "boolean"])
def test_an_optional_column_of_nulls_is_left_out_where_its_type_has_none(kind: str) -> None:
    model, kept = keeping(column("double", "x"), column(kind, "y", required=False))
    for body, media in (
        ({"data": [{"x": 1, "y": None}, {"x": 2}]}, "application/json"),
        ({"data": [[1, None], [2, None]]}, "application/json"),
        (b"x,y\n1,\n2,\n", "text/csv"),
    ):
        assert send(model, body, media)[0] == 200
        assert kept.got.to_dict("list") == {"x": [1.0, 2.0]}
    status, answer = send(model, {"data": [{"x": 1, "y": None}, {"x": 2, "y": 1}]})
    if kind == "boolean":  # as objects it knows missing ones, and MLflow takes it so
        assert kept.got.to_dict("list") == {"x": [1.0, 2.0], "y": [None, True]}
    else:
        assert (status, "'y'" in answer["message"], "not null" in answer["message"]) == (400, True, True)


def test_null_fields_count_as_absent() -> None:
    model, kept = keeping()
    assert send(model, {"text": "a", "inputs": None, "image": None})[0] == 200
    assert kept.got == "a"
    v2 = {"inputs": [{"name": "x", "datatype": "INT64", "shape": [1], "data": [7]}], "text": None, "data": None}
    assert send(model, v2)[0] == 200
    assert kept.got.tolist() == [7]
    assert "none of the fields" in send(model, {"inputs": None, "text": None})[1]["error"]


def test_an_override_takes_legacy_out_of_an_ambiguous_body() -> None:
    model, kept = keeping()
    assert send(model, {"inputs": [1], "text": "x"}, query={"inference_type": "text"})[0] == 200
    assert kept.got == "x"


def test_the_kind_of_a_request_is_found_and_not_changed() -> None:
    model, _ = keeping()
    request = InferRequest(id=1, content_type="application/json")
    assert model.decode(request, b'{"text": "x"}').kind == "legacy"
    with pytest.raises(InvalidRequest) as raised:
        model.decode(request, b'{"text": 1}')
    assert request.kind == "infer"
    answer = model.failure(request.kind, raised.value)
    assert answer is not None
    assert answer.status == 400


def test_every_code_has_a_status() -> None:
    for code, leaf in BY_CODE.items():
        answer = legacy_failure(leaf("why"))
        assert answer.status == STATUSES[code].http
        assert json.loads(bytes(answer.body)) == {"statusCode": answer.status, "message": "why", "error": "why"}
