"""MLmodel text to fields and V2 metadata."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modelhub.serving.protocol.errors import LoadError
from modelhub.serving.protocol.signature import (
    metadata_from_mlmodel,
    parse_mlmodel,
    platform_from_mlmodel,
    signature_from_mlmodel,
)


def mlmodel(inputs: Any = None, outputs: Any = None, params: Any = None) -> dict[str, Any]:
    parts = {"inputs": inputs, "outputs": outputs, "params": params}
    return {"signature": {key: json.dumps(value) if value is not None else None for key, value in parts.items()}}


def column(kind: str, name: str | None = None, **more: Any) -> dict[str, Any]:
    return {"type": kind, "required": True, **({"name": name} if name else {}), **more}


def tensor(dtype: str, shape: list[int], name: str | None = None) -> dict[str, Any]:
    return {
        "type": "tensor",
        "tensor-spec": {"dtype": dtype, "shape": shape},
        **({"name": name} if name else {}),
    }


@pytest.mark.parametrize(
    ("kind", "datatype"),
    [
        ("boolean", "BOOL"),
        ("integer", "INT32"),
        ("long", "INT64"),
        ("float", "FP32"),
        ("double", "FP64"),
        ("string", "BYTES"),
        ("binary", "BYTES"),
        ("datetime", "BYTES"),
        ("array", "BYTES"),
        ("object", "BYTES"),
        ("map", "BYTES"),
        ("any", "BYTES"),
        ("sparkml_vector", "BYTES"),
    ],
)
def test_columns(kind: str, datatype: str) -> None:
    document = mlmodel([column(kind, "a")])
    assert metadata_from_mlmodel(document)["inputs"] == [{"name": "a", "datatype": datatype, "shape": [-1]}]
    signature = signature_from_mlmodel(document)
    assert signature is not None
    assert signature.inputs[0].holds_json == (kind in ("array", "object", "map", "any", "sparkml_vector"))


@pytest.mark.parametrize(
    ("dtype", "datatype"),
    [
        ("bool", "BOOL"),
        ("uint8", "UINT8"),
        ("int64", "INT64"),
        ("float16", "FP16"),
        ("bfloat16", "BF16"),
        ("float32", "FP32"),
        ("float64", "FP64"),
        ("str", "BYTES"),
        ("object", "BYTES"),
        ("datetime64[ns]", "BYTES"),
    ],
)
def test_tensors(dtype: str, datatype: str) -> None:
    found = metadata_from_mlmodel(mlmodel([tensor(dtype, [-1, 28, 28], "image")]))
    assert found["inputs"] == [{"name": "image", "datatype": datatype, "shape": [-1, 28, 28]}]


def test_names_for_the_nameless() -> None:
    found = metadata_from_mlmodel(mlmodel([column("double"), column("long")], [tensor("int64", [-1])]))
    assert [each["name"] for each in found["inputs"]] == ["input-0", "input-1"]
    assert [each["name"] for each in found["outputs"]] == ["output-0"]


def test_optional_columns_of_both_spellings() -> None:
    signature = signature_from_mlmodel(
        mlmodel([column("double", "a"), column("double", "b", required=False), {"type": "long", "optional": True}])
    )
    assert signature is not None
    assert [each.required for each in signature.inputs] == [True, False, False]


def test_params() -> None:
    items = [
        {"name": "k", "type": "long", "default": 3, "shape": None},
        {"name": "stop", "dtype": "string", "default": ["a"], "shape": [-1]},
    ]
    signature = signature_from_mlmodel(mlmodel([column("double")], params=items))
    assert signature is not None
    assert [(each.name, each.type, each.default, each.is_list) for each in signature.params] == [
        ("k", "long", 3, False),
        ("stop", "string", ["a"], True),
    ]


def test_without_a_signature() -> None:
    assert signature_from_mlmodel({}) is None
    expected = {"platform": "mlflow_python_function", "inputs": [], "outputs": []}
    assert metadata_from_mlmodel({"flavors": {"python_function": {"loader_module": "mlflow.pyfunc.model"}}}) == expected


@pytest.mark.parametrize(
    ("flavors", "platform"),
    [
        ({"python_function": {"loader_module": "mlflow.sklearn"}, "sklearn": {}}, "mlflow_sklearn"),
        ({"mleap": {}, "python_function": {"loader_module": "mlflow.spark"}, "spark": {}}, "mlflow_spark"),
        ({"python_function": {"loader_module": "own.loader"}, "onnx": {}}, "mlflow_onnx"),
        ({"python_function": {}}, "mlflow_python_function"),
    ],
)
def test_platform(flavors: dict[str, Any], platform: str) -> None:
    assert platform_from_mlmodel({"flavors": flavors}) == platform


@pytest.mark.parametrize(
    "section",
    [
        *({"inputs": each} for each in ("{", '{"a": 1}', "[1]", '[{"name": "a"}]', 3, "[" * 100_000)),
        "text",
    ],
)
def test_unreadable_signatures(section: Any) -> None:
    with pytest.raises(LoadError, match="signature"):
        signature_from_mlmodel({"signature": section})


@pytest.mark.parametrize("text", ["a: [", "- a", "just text", "", "a: 1", "flavors: text", "[" * 3000 + "]" * 3000])
def test_unreadable_files(text: str) -> None:
    with pytest.raises(LoadError, match="MLmodel"):
        parse_mlmodel(text)
