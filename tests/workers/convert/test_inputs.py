"""What a model is called with, for every type of column and tensor: asked of real models that say what they got."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from modelhub.serving.protocol.errors import InvalidRequest
from modelhub.serving.workers.model.failures import schema_complaint
from modelhub.serving.workers.model.served import ServedModel
from support.served_calls import ask, columns, outputs, tensors
from support.v2_client import binary_request, parse, tensor

Save = Callable[..., ServedModel]

# ---- every column type ---------------------------------------------------------------------------


SIMPLE = "return pd.DataFrame({'got': [repr(each) for each in model_input['x'].tolist()]})"


@pytest.mark.parametrize(
    ("kind", "datatype", "sent", "got"),
    [
        ("boolean", "BOOL", True, "True"),
        ("integer", "INT32", 3, "3"),
        ("integer", "INT64", 3, "3"),
        ("long", "INT64", 2**60 + 1, str(2**60 + 1)),
        ("long", "FP64", 3, "3"),
        ("float", "FP32", 0.5, "0.5"),
        ("float", "FP64", 0.5, "0.5"),
        ("double", "FP16", 0.5, "0.5"),
        ("string", "BYTES", "é", "'é'"),
        ("binary", "BYTES", "é", repr("é".encode())),
        ("datetime", "BYTES", "2024-01-31T12:00:00.000001", "Timestamp('2024-01-31 12:00:00.000001')"),
        ("datetime", "BYTES", "2024-01-31T12:00:00+01:00", "Timestamp('2024-01-31 11:00:00')"),
        ("datetime", "BYTES", "2024-01-31T12:00:00Z", "Timestamp('2024-01-31 12:00:00')"),
        ("datetime", "BYTES", "2024-01-31", "Timestamp('2024-01-31 00:00:00')"),
        ("datetime", "BYTES", "", "NaT"),
    ],
)
def test_column_types(save: Save, kind: str, datatype: str, sent: Any, got: str) -> None:
    model = save(SIMPLE, signature=columns(x=kind))
    assert outputs(model, tensor("x", datatype, [1], [sent]))["got"].data == [got.encode()]


@pytest.mark.parametrize(
    ("kind", "datatype", "sent"),
    [
        ("integer", "INT64", 2**31),
        ("integer", "FP64", 1.5),
        ("long", "FP64", None),
        ("long", "UINT64", 2**63),
        ("float", "FP64", 0.1),
        ("float", "FP64", 1e300),
        ("float", "INT64", 2**24 + 1),
        ("boolean", "UINT8", 1),
        ("string", "FP64", 1),
        ("datetime", "BYTES", "yesterday"),
        ("datetime", "BYTES", "now"),
        ("datetime", "BYTES", "today"),
        ("datetime", "BYTES", "9999-12-31T00:00:00"),
        ("datetime", "INT64", 0),
    ],
)
def test_values_that_columns_refuse(save: Save, kind: str, datatype: str, sent: Any) -> None:
    model = save(SIMPLE, signature=columns(x=kind))
    with pytest.raises(InvalidRequest, match="'x' takes"):
        outputs(model, tensor("x", datatype, [1], [sent]))


def test_structured_columns_hold_json(save: Save) -> None:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array, Map, Object, Property

    schema = Schema(
        [
            ColSpec(Array(DataType.long), "array"),
            ColSpec(Object([Property("a", DataType.string)]), "object"),
            ColSpec(Map(DataType.double), "map"),
            ColSpec(DataType.double, "missing", required=False),
        ]
    )
    model = save(
        "return {'columns': list(model_input.columns), 'rows': model_input.to_dict('records')}",
        signature=ModelSignature(schema),
    )
    sent = {"array": [1, 2], "object": {"a": "x"}, "map": {"k": 0.5}}
    inputs = [tensor(name, "BYTES", [1], [json.dumps(value)]) for name, value in sent.items()]
    found = outputs(model, *inputs)
    assert found["columns"].data == [b"array", b"object", b"map"]
    assert json.loads(found["rows"].data[0]) == sent
    inputs[0] = tensor("array", "BYTES", [1], ["[1,"])
    with pytest.raises(InvalidRequest, match="JSON"):
        outputs(model, *inputs)
    inputs[0] = tensor("array", "BYTES", [1], ['["not a long"]'])
    with pytest.raises(InvalidRequest, match="signature"):
        outputs(model, *inputs)


def test_schema_complaints_do_not_quote_the_data(save: Save) -> None:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Object, Property

    schema = Schema([ColSpec(Object([Property("a", DataType.long)]), "x")])
    model = save("return 1", signature=ModelSignature(schema))
    with pytest.raises(InvalidRequest) as caught:
        outputs(model, tensor("x", "BYTES", [1], ['["my secret"]']))
    assert "my secret" not in caught.value.message
    assert "dictionary" in caught.value.message


def test_type_hint_complaints_name_the_field() -> None:
    import pydantic
    from mlflow.exceptions import MlflowException
    from mlflow.types.type_hints import _validate_data_against_type_hint

    class Message(pydantic.BaseModel):
        role: str

    for sent, words in ({"name": "secret"}, "Field required"), ({"role": 77}, "Input should be a valid string"):
        with pytest.raises(MlflowException) as caught:
            _validate_data_against_type_hint([sent], list[Message])
        said = "Failed to validate data against type hint `list[Message]`: role: "
        assert schema_complaint(caught.value) == said + words


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"rol": "secret"}, "input.0.content: Field required"),
        ({"role": "secret", "content": "x"}, "input.0: Value error"),
    ],
)
def test_complaints_about_an_agents_request(message: dict[str, str], said: str) -> None:
    from mlflow.types.responses import ResponsesAgentRequest
    from pydantic import ValidationError

    with pytest.raises(ValidationError) as caught:
        ResponsesAgentRequest(input=[message])
    assert schema_complaint(caught.value) == said


def test_nameless_columns(save: Save) -> None:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    model = save(
        "return [str(list(model_input.columns)), *model_input.iloc[:, 0]]",
        signature=ModelSignature(Schema([ColSpec(DataType.string)])),
    )
    assert model.metadata["inputs"] == [{"name": "input-0", "datatype": "BYTES", "shape": [-1]}]
    assert outputs(model, tensor("input-0", "BYTES", [1], ["a"]))["output-0"].data == [b"[0]", b"a"]


@pytest.mark.parametrize(
    ("dtype", "datatype", "sent", "got"),
    [
        ("str", "BYTES", ["a", "bc"], "array(['a', 'bc'], dtype='<U2')"),
        ("object", "BYTES", ["a"], "array(['a'], dtype=object)"),
        ("bytes", "BYTES", ["a"], "array([b'a'], dtype='|S1')"),
        ("datetime64[ns]", "BYTES", ["2024-01-31"], "array(['2024-01-31T00:00:00.000000000'], dtype='datetime64[ns]')"),
        ("float16", "FP32", [0.5], "array([0.5], dtype=float16)"),
        ("uint8", "INT64", [255], "array([255], dtype=uint8)"),
    ],
)
def test_tensor_types(save: Save, dtype: str, datatype: str, sent: list[Any], got: str) -> None:
    model = save("return repr(model_input)", signature=tensors((dtype, (-1,), None)))
    assert outputs(model, tensor("x", datatype, [len(sent)], sent))["output-0"].data == [got.encode()]


# ---- no signature --------------------------------------------------------------------------------


def test_without_a_signature_one_tensor_is_an_array(save: Save) -> None:
    model = save("return [type(model_input).__name__, str(model_input.shape), *map(repr, model_input.ravel())]")
    assert model.metadata["inputs"] == []
    found = outputs(model, tensor("x", "BYTES", [1, 1], ["a"]))
    assert found["output-0"].data == [b"ndarray", b"(1, 1)", b"'a'"]
    body, json_size = binary_request(tensor("x", "BYTES", [1], [b"\xff"]))
    assert parse(bytes(ask(model, body, json_size).body))[1]["output-0"].data[2] == b"b'\\xff'"


@pytest.mark.parametrize(
    ("second", "kind"),
    [([2, 1], b"DataFrame"), ([2], b"DataFrame"), ([1], b"dict"), ([2, 2], b"dict"), ([], b"dict")],
)
def test_without_a_signature_several_tensors_are_columns_or_a_dict(save: Save, second: list[int], kind: bytes) -> None:
    model = save("return type(model_input).__name__")
    count = int(np.prod(second))
    found = outputs(model, tensor("a", "INT64", [2], [1, 2]), tensor("b", "INT64", second, [1] * count))
    assert found["output-0"].data == [kind]
