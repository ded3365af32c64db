"""A model's own input example as a V2 request that the model takes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from modelhub.serving.protocol.messages import InferRequest
from modelhub.serving.protocol.worker_spec import WorkerSpec
from modelhub.serving.workers.load.example import read_example
from modelhub.serving.workers.load.mlflow import load
from modelhub.serving.workers.model.served import ServedModel

Save = Callable[..., ServedModel]


def inputs(model: ServedModel) -> list[dict[str, Any]]:
    """The example's inputs, after the model has answered it."""
    call = model.decode(InferRequest(id=1), model.example)
    model.encode(call, model.predict(call))
    found: list[dict[str, Any]] = json.loads(model.example)["inputs"]
    return found


def test_iris(served: Callable[[str], ServedModel]) -> None:
    found = inputs(served("iris"))
    assert [each["name"] for each in found] == ["sepal_length", "sepal_width", "petal_length", "petal_width"]
    assert found[0] == {"name": "sepal_length", "shape": [2], "datatype": "FP64", "data": [5.1, 4.9]}


def test_text(served: Callable[[str], ServedModel]) -> None:
    (only,) = inputs(served("sentiment"))
    assert only == {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["what a good day"]}


def test_a_model_without_one(served: Callable[[str], ServedModel]) -> None:
    assert served("digits").example == b""


def signed(example: Any, **params: Any) -> dict[str, Any]:
    from mlflow.models import infer_signature

    given = (example, params) if params else example
    return {"signature": infer_signature(example, params=params or None), "input_example": given}


@pytest.mark.parametrize("with_signature", [True, False])
def test_arrays(save: Save, with_signature: bool) -> None:
    example = np.array([[0.5, np.nan, 1.5]])
    options = signed(example) if with_signature else {"input_example": example}
    (only,) = inputs(save("return model_input", **options))
    assert only == {"name": "input-0", "shape": [1, 3], "datatype": "FP64", "data": [0.5, None, 1.5]}


@pytest.mark.parametrize("with_signature", [True, False])
def test_dicts_of_arrays(save: Save, with_signature: bool) -> None:
    example = {"a": np.zeros((2, 1), "i8"), "b": np.array(["x", "y"])}
    options = signed(example) if with_signature else {"input_example": example}
    assert inputs(save("return {'n': len(model_input)}", **options)) == [
        {"name": "a", "shape": [2, 1], "datatype": "INT64", "data": [0, 0]},
        {"name": "b", "shape": [2], "datatype": "BYTES", "data": ["x", "y"]},
    ]


def test_params(save: Save) -> None:
    model = save("return model_input", **signed(pd.DataFrame({"a": [1.0]}), k=3, stop=["x"]))
    inputs(model)
    assert json.loads(model.example)["parameters"] == {"k": 3, "stop": '["x"]'}


def test_columns_of_all_types(save: Save) -> None:
    frame = pd.DataFrame(
        {
            "flag": [True],
            "when": [pd.Timestamp("2024-01-31")],
            "raw": [b"\xff"],
            "list": [[1, 2]],
            "object": [{"a": "x"}],
        }
    )
    found = {each["name"]: each for each in inputs(save("return len(model_input)", **signed(frame)))}
    assert found["flag"]["data"] == [True]
    assert found["when"]["data"][0].startswith("2024-01-31")
    assert found["raw"]["parameters"] == {"content_type": "base64"}
    assert json.loads(found["list"]["data"][0]) == [1, 2]
    assert json.loads(found["object"]["data"][0]) == {"a": "x"}


GAPS = {
    "texts": (["x", None], "string"),
    "texts, the first missing": ([None, "x"], "string"),
    "texts that are NaN": (["x", np.nan], "string"),
    "flags": ([True, None], "boolean"),
    "bytes": ([b"x", None], "binary"),
    "dates": ([pd.Timestamp("2024-01-31"), pd.NaT], "datetime"),
    "nothing but missing": ([None, None], "string"),
}


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("gap", GAPS)
def test_missing_values_never_fail_a_model(save: Save, gap: str, required: bool) -> None:
    """The model gets the example as it is, or what could be said of it, which is then said to be altered."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    values, kind = GAPS[gap]
    schema = Schema([ColSpec("double", "a"), ColSpec(kind, "b", required=required)])
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": values})
    model = save("return len(model_input)", signature=ModelSignature(schema), input_example=frame)
    if not model.example:
        assert required
        return
    found = {each["name"]: each for each in inputs(model)}
    exact = found.get("b", {}).get("shape") == [2]
    assert exact or "'b'" in model.example_altered
    assert found["a"]["data"] == [1.0, 2.0] or (gap != "nothing but missing" and len(found["a"]["data"]) == 1)
    assert "null" not in str(found.get("b", {}).get("data"))


@pytest.mark.parametrize("column", [["C85", None], [True, None], [1, None], [0.5, None]], ids=repr)
def test_missing_values_without_a_signature(save: Save, column: list[Any]) -> None:
    model = save("return [len(model_input['b'])]", signature=False, input_example=pd.DataFrame({"b": column}))
    ((only,), altered) = inputs(model), model.example_altered
    assert only["shape"] == ([1] if altered else [2])
    assert "null" not in only["data"]


KINDS = {
    "one column": (pd.DataFrame({"x": [1.0, 2.0]}), "DataFrame ['x']"),
    "one text column": (pd.DataFrame({"x": ["a", "b"]}), "DataFrame ['x']"),
    "columns": (pd.DataFrame({"x": [1, 2], "y": ["a", "b"]}), "DataFrame ['x', 'y']"),
    "array": (np.array([1.0, 2.0]), "ndarray (2,)"),
    "matrix": (np.array([[1.0], [2.0]]), "ndarray (2, 1)"),
    "arrays by name": ({"x": np.array([1.0, 2.0]), "y": np.array([1, 2])}, "dict ndarray ndarray"),
    "object": ({"question": "why", "k": 3, "of": ["a", "b"]}, "dict {'question': 'why', 'k': 3, 'of': ['a', 'b']}"),
    "object of one": ({"question": "why"}, "dict {'question': 'why'}"),
    "texts": (["a", "b"], "list ['a', 'b']"),
    "text": ("a", "str 'a'"),
    "records": ([{"x": 1.0}, {"x": 2.0}], "list [{'x': 1.0}, {'x': 2.0}]"),
}
SAYS = """
if isinstance(model_input, pd.DataFrame): said = list(model_input.columns)
elif isinstance(model_input, np.ndarray): said = model_input.shape
elif isinstance(model_input, dict) and isinstance(next(iter(model_input.values())), np.ndarray): said = None
else: said = repr(model_input)
return [f"{type(model_input).__name__} {'ndarray ndarray' if said is None else said}"]
"""


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_signature_the_model_gets_what_its_example_is(save: Save, kind: str) -> None:
    example, expected = KINDS[kind]
    model = save(SAYS.strip(), signature=False, input_example=example)
    call = model.decode(InferRequest(id=1), model.example)
    assert model.predict(call) == [expected]
    sent = json.loads(model.example)["inputs"]
    published = [(each["name"], each["datatype"], [-1, *each["shape"][1:]]) for each in sent]
    assert [(each["name"], each["datatype"], each["shape"]) for each in model.metadata["inputs"]] == published
    assert not model.example_altered


@pytest.mark.parametrize(
    ("example", "sent", "expected"),
    [
        (np.array([[1.0, 2.0]]), [[1, 2], [3, 4]], "ndarray (2, 2)"),
        (np.array([1.0]), [1, 2], "ndarray (2,)"),
        (pd.DataFrame({"x": [1.0]}), [{"x": 1}], "DataFrame ['x']"),
        (pd.DataFrame({"x": [1.0]}), [[1]], "DataFrame [0]"),
        ([{"x": 1.0}], [{"x": 1}], "list [{'x': 1}]"),
        ({"x": 1.0}, {"x": 1}, "dict {'x': 1}"),
        (["a"], ["b", "c"], "list ['b', 'c']"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_rows_of_a_table_too(save: Save, example: Any, sent: Any, expected: str) -> None:
    model = save(SAYS.strip(), signature=False, input_example=example)
    body = json.dumps({"data": sent}).encode()
    call = model.decode(InferRequest(id=1, content_type="application/json"), body)
    assert model.predict(call) == [expected]


@pytest.mark.parametrize("example", ["one text", ["a", "b"]])
def test_plain_text(save: Save, example: Any) -> None:
    (only,) = inputs(save("return list(model_input.iloc[:, 0])", **signed(example)))
    assert only["data"] == ([example] if isinstance(example, str) else example)


def test_records(save: Save) -> None:
    example = [{"messages": [{"role": "user"}]}, {"messages": []}]
    (only,) = inputs(save("return len(model_input)", **signed(example[:1])))
    assert only == {"name": "messages", "shape": [1], "datatype": "BYTES", "data": ['[{"role":"user"}]']}


def test_large_examples_are_left_out(save: Save) -> None:
    assert save("return 1", **signed(np.zeros((1000, 200)))).example == b""


def test_examples_that_the_model_refuses_are_left_out(
    models: Path, tmp_path: Path, mlflow_imported: None, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(models / "iris", tmp_path / "iris")
    (tmp_path / "iris" / "input_example.json").write_text('{"columns": ["sepal_length"], "data": [[1]]}')
    model = load(WorkerSpec("iris", "1", 0, 0, "", "", str(tmp_path / "iris"), "", "/"))
    assert model.example == b""
    assert "'sepal_width'" in capsys.readouterr().err


def test_old_mlflow_wrapped_arrays(tmp_path: Path) -> None:
    (tmp_path / "input_example.json").write_text('{"inputs": [[1, 2]]}')
    info = {"artifact_path": "input_example.json", "type": "ndarray", "format": "tf-serving"}
    ((body, altered),) = read_example(str(tmp_path), {"saved_input_example_info": info}, None).bodies
    assert not altered
    assert json.loads(body)["inputs"] == [{"name": "input-0", "shape": [1, 2], "datatype": "INT64", "data": [1, 2]}]


@pytest.mark.parametrize("text", ["", "{", "[[1], [2, 3]]", '{"data": []}', "\xff"])
@pytest.mark.parametrize("kind", ["ndarray", "dataframe", "json_object", "sparse_matrix_csr", None])
def test_what_cannot_be_read_is_none(tmp_path: Path, text: str, kind: str | None) -> None:
    (tmp_path / "input_example.json").write_text(text)
    found = read_example(
        str(tmp_path), {"saved_input_example_info": {"artifact_path": "input_example.json", "type": kind}}, None
    )
    assert not found.bodies or kind == "json_object" or (kind == "ndarray" and text.startswith('{"'))
    assert not read_example(str(tmp_path), {"saved_input_example_info": {"artifact_path": "gone.json"}}, None).bodies
