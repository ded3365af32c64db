"""MLflow's dialect, side by side with a real `mlflow models serve` of the same model; and KServe's V1."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelhub.serving.protocol.errors import InvalidRequest, ServingError
from modelhub.serving.protocol.messages import InferRequest
from modelhub.serving.workers.dialects.invocations import dumps_predictions
from modelhub.serving.workers.model.served import ServedModel
from support.files import column, image_file, keeping, pdf_file, send, tensor
from support.mlflow_serving import ScoringServer, scoring_servers

Served = Callable[[str], ServedModel]

COMPARED = ("iris", "digits", "sentiment", "params")
COLUMNS = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]]
RECORDS = [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]
BY_COLUMN = {name: [row[at] for row in ROWS] for at, name in enumerate(COLUMNS)}
CSV = ",".join(COLUMNS) + "\n5.1,3.5,1.4,0.2\n6.3,3.3,6.0,2.5\n"
PIXELS = [[float(at % 17) / 16 for at in range(64)]]
VALUE = {"dataframe_split": {"columns": ["value"], "data": [[2.0]]}}

#: (model, body, content type): both must answer the same. Text is CSV.
SAME: list[tuple[str, Any]] = [
    ("iris", {"dataframe_split": {"columns": COLUMNS, "data": ROWS}}),
    ("iris", {"dataframe_split": {"columns": COLUMNS[::-1], "index": [7, 8], "data": [row[::-1] for row in ROWS]}}),
    ("iris", {"dataframe_records": RECORDS}),
    ("iris", {"dataframe_records": [{**RECORDS[0], "unknown": 1}]}),
    ("iris", {"instances": RECORDS}),
    ("iris", {"inputs": BY_COLUMN}),
    ("iris", {"inputs": RECORDS}),
    ("iris", CSV),
    ("digits", {"inputs": PIXELS}),
    ("digits", {"instances": PIXELS * 2}),
    ("sentiment", {"dataframe_records": [{"text": "a wonderful day"}, {"text": "grüß awful"}]}),
    ("sentiment", {"inputs": ["a wonderful day"]}),
    ("sentiment", {"instances": [{"text": "a terrible day"}]}),
    ("sentiment", "text\n007\n"),
    ("params", VALUE),
    ("params", {**VALUE, "params": {"factor": 3.5, "offset": 2, "suffix": "é"}}),
    ("params", {**VALUE, "params": {"unknown": 1}}),
    ("params", {**VALUE, "params": {}}),
    ("params", {**VALUE, "params": None}),
    ("params", {"dataframe_records": [{"value": float("nan")}]}),
]
#: Both must refuse these.
REFUSED: list[tuple[str, Any]] = [
    ("iris", {}),
    ("iris", []),
    ("iris", {"data": RECORDS}),
    ("iris", {"dataframe_split": RECORDS}),
    ("iris", {"dataframe_split": {"columns": COLUMNS}}),
    ("iris", {"dataframe_split": {"columns": COLUMNS, "data": ROWS, "more": 1}}),
    ("iris", {"dataframe_split": {"columns": COLUMNS, "data": [[1, 2]]}}),
    ("iris", {"dataframe_records": RECORDS[0]}),
    ("iris", {"dataframe_records": [{"sepal_length": "secret-value"}]}),
    ("iris", {"dataframe_records": [{"sepal_length": 1.0}]}),
    ("iris", {"dataframe_records": RECORDS, "inputs": BY_COLUMN}),
    ("iris", {"inputs": {"sepal_length": "secret-value"}}),
    ("iris", {"instances": [{**RECORDS[0], "sepal_length": "secret-value"}]}),
    ("digits", {"inputs": [["secret-value"]]}),
    ("digits", {"inputs": [[1.0, 2.0]]}),
    ("params", {**VALUE, "params": {"factor": "secret-value"}}),
    ("params", {**VALUE, "params": [1]}),
]


@pytest.fixture(scope="module")
def scoring(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ScoringServer]]:
    """MLflow's own servers of fixture models."""
    iris, *others = (models / name for name in COMPARED)
    with scoring_servers(iris, *others, folder=tmp_path_factory.mktemp("scoring")) as servers:
        yield servers


def payload(body: Any) -> tuple[bytes, str]:
    if isinstance(body, str):
        return body.encode(), "text/csv"
    return json.dumps(body).encode(), "application/json"


def ask(model: ServedModel, raw: bytes, content_type: str = "application/json") -> tuple[int, bytes | str]:
    """200 and the body, or 0 and the message."""
    try:
        call = model.decode(InferRequest(id=1, kind="invocations", content_type=content_type), raw)
        return 200, bytes(model.encode(call, model.predict(call)).body)
    except InvalidRequest as error:
        return 0, error.message


@pytest.mark.parametrize("name", COMPARED)
@pytest.mark.timeout(240)
def test_the_same_answers_as_mlflow_models_serve(served: Served, scoring: dict[str, ScoringServer], name: str) -> None:
    theirs = scoring[name]
    for each, body in SAME:
        if each == name:
            assert (200, theirs.post(*payload(body))[1]) == ask(served(name), *payload(body)), body
            assert theirs.post(*payload(body))[0] == 200, body
    for each, body in REFUSED:
        if each == name:
            assert theirs.post(*payload(body))[0] >= 400, body
            status, message = ask(served(name), *payload(body))
            assert status == 0, body
            assert "secret" not in str(message)


def test_clear_messages(served: Served) -> None:
    for body, words in (
        (
            {"data": 1},
            "exactly one of the fields dataframe_split, dataframe_records, instances, inputs; its fields: data",
        ),
        ({"dataframe_records": {}}, "must be a list of records"),
        ({"dataframe_records": [{"sepal_length": 1.0}]}, "missing inputs"),
        ({**VALUE, "params": [1]}, '"params" must be an object'),
        ([1], "must be a JSON object"),
    ):
        status, message = ask(served("iris"), json.dumps(body).encode())
        assert (status, words in str(message)) == (0, True), message
    for body in (b'{"a": NaN', b'{"\\ud800": NaN}'):
        assert "not valid JSON" in str(ask(served("iris"), body)[1])
    assert "not UTF-8" in str(ask(served("iris"), b"\xff\xfe", "text/csv")[1])
    assert ask(served("iris"), CSV.encode(), "text/csv; charset=UTF-8")[0] == 200
    assert ask(served("digits"), b"a,b\n1,2\n", "text/csv")[0] == 0


def test_a_request_without_content_type_is_json(served: Served) -> None:
    assert ask(served("iris"), json.dumps({"inputs": BY_COLUMN}).encode(), "")[0] == 200


def test_other_media_types(served: Served) -> None:
    for content_type in ("text/csv; charset=latin-1", "application/json; charset=latin-1", "application/xml"):
        request = InferRequest(id=1, kind="invocations", content_type=content_type)
        with pytest.raises(ServingError) as caught:
            served("iris").decode(request, b"a")
        assert caught.value.code == "unsupported_media_type"


def test_the_form_of_language_models() -> None:
    model, kept = keeping(column("string", "prompt"), answer={"choices": []})
    body = {"prompt": "hello", "temperature": 0.5}
    assert send(model, body, kind="invocations") == (200, {"choices": []})
    assert kept.got == body


def test_answers_that_cannot_be_sent(served: Served) -> None:
    with pytest.raises(ServingError) as caught:
        dumps_predictions(object())
    assert caught.value.code == "model_error"
    frame = pd.DataFrame({"t": pd.to_datetime(["2024-01-31"]), "b": [b"\0"], "f": [np.float32(0.5)]})
    assert json.loads(dumps_predictions(frame))["predictions"][0]["t"] == "2024-01-31T00:00:00"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(COLUMNS[:2]), inner, max_size=2),
    max_leaves=6,
)


@settings(max_examples=60)
@given(st.sampled_from(["dataframe_split", "dataframe_records", "instances", "inputs", "params"]), VALUES)
def test_any_body_is_answered_or_refused(served: Served, name: str, value: Any) -> None:
    for model in ("iris", "digits"):
        ask(served(model), json.dumps({name: value}).encode())


# ---- KServe V1 ------------------------------------------------------------------------------------


def v1(model: ServedModel, body: Any) -> Any:
    status, answer = send(model, body, kind="v1_predict")
    return answer["predictions"] if status == 200 else answer["error"]


def test_v1_instances(served: Served) -> None:
    assert v1(served("iris"), {"instances": ROWS}) == [0, 2]
    assert v1(served("iris"), {"instances": RECORDS}) == [0, 2]
    assert v1(served("digits"), {"instances": PIXELS}) == v1(served("digits"), {"instances": PIXELS, "params": None})
    assert v1(served("sentiment"), {"instances": ["a good day"]})[0]["label"] == "positive"
    assert v1(served("params"), {"instances": [2.0], "params": {"factor": 2.0}}) == [{"value": 4.0, "label": "4"}]


def test_v1_files() -> None:
    model, kept = keeping(tensor("uint8", -1, 4, 4, 3), answer=[1, 2])
    files = [{"b64": base64.b64encode(image_file()).decode()} for _ in range(2)]
    assert v1(model, {"instances": files}) == [1, 2]
    assert kept.got.shape == (2, 4, 4, 3)
    assert v1(model, {"instances": [{"b64": base64.b64encode(pdf_file("red")).decode()}]}) == [1, 2]
    assert kept.got.shape == (1, 4, 4, 3)


def test_v1_bytes_in_a_column() -> None:
    record = {"image": {"b64": "AAE="}, "name": "x"}
    model, kept = keeping(column("binary", "image"), column("string", "name"))
    v1(model, {"instances": [record, record]})
    assert kept.got.to_dict("list") == {"image": [b"\0\1"] * 2, "name": ["x"] * 2}
    model, kept = keeping(column("string", "image"))
    v1(model, {"instances": [record]})
    assert kept.got["image"].tolist() == ["AAE="]


@pytest.mark.parametrize(
    ("answer", "predictions"),
    [
        (np.array([[0.5, 1.0]]), [[0.5, 1.0]]),
        (pd.DataFrame({"a": [1]}), [{"a": 1}]),
        ({"a": np.array([1, 2]), "b": ["x", "y"]}, [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]),
        ({"a": 1}, [{"a": 1}]),
        ("text", ["text"]),
        (None, [None]),
    ],
)
def test_v1_predictions(answer: Any, predictions: Any) -> None:
    assert v1(keeping(column("double", "d"), answer=answer)[0], {"instances": [1.0]}) == predictions


@pytest.mark.parametrize(
    "body", [{}, {"instances": []}, {"instances": 1}, [], {"instances": [[1, 2]]}, {"instances": ["a"]}]
)
def test_v1_refuses(served: Served, body: Any) -> None:
    assert isinstance(v1(served("iris"), body), str)
