"""What a client sent is never in the error that it gets, whichever library found the fault."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from modelhub.serving.workers.model.served import ServedModel
from support.files import send

Save = Callable[..., ServedModel]
TEXTS = ("Jane Roe", "19'9\"9 Roe", "2024-13-45 Roe")
VALUES: tuple[Any, ...] = (*TEXTS, {"a": "Jane Roe"}, ["Jane Roe"], {"Jane Roe": 1}, ["Jane Roe", 1.0])


def signatures() -> dict[str, Any]:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec
    from mlflow.types.schema import Array, Map, Object, ParamSchema, ParamSpec, Property

    day = ParamSchema([ParamSpec("day", "datetime", datetime.datetime(2024, 1, 1))])
    columns = {
        "datetime": "datetime",
        "long": "long",
        "boolean": "boolean",
        "object": Object([Property("a", "double")]),
        "array": Array("double"),
        "map": Map("double"),
    }
    found = {name: ModelSignature(Schema([ColSpec(kind, "born")]), params=day) for name, kind in columns.items()}
    tensor = TensorSpec(np.dtype("datetime64[ns]"), (-1,), "born")
    return {**found, "tensor": ModelSignature(Schema([tensor]))}


def bodies(value: Any) -> list[tuple[str, dict[str, Any]]]:
    text = value if isinstance(value, str) else json.dumps(value)
    return [
        ("infer", {"data": [{"born": value}]}),
        ("infer", {"inputs": [{"name": "born", "datatype": "BYTES", "shape": [1], "data": [text]}]}),
        ("v1_predict", {"instances": [{"born": value}]}),
        ("invocations", {"dataframe_records": [{"born": value}]}),
        ("invocations", {"dataframe_split": {"columns": ["born"], "data": [[value]]}}),
        ("invocations", {"inputs": [{"born": value}]}),
        ("invocations", {"inputs": {"born": [value]}}),
        ("invocations", {"instances": [{"born": value}]}),
    ]


@pytest.mark.parametrize("name", ["datetime", "long", "boolean", "object", "array", "map", "tensor"])
def test_a_value_that_does_not_fit_is_the_clients_mistake_and_not_repeated(save: Save, name: str) -> None:
    model = save("return [1]", signature=signatures()[name])
    refused = 0
    for value in VALUES:
        for kind, body in bodies(value):
            status, answer = send(model, body, kind=kind)
            said = json.dumps(answer)
            assert "Roe" not in said, (kind, body, answer)
            if status != 200:
                assert status == 400 or answer["code"] == "invalid_request", (kind, body, answer)
                refused += 1
    assert refused


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("kind", ["infer", "v1_predict", "invocations"])
def test_a_parameter_that_is_no_moment(save: Save, kind: str, text: str) -> None:
    model = save("return [1]", signature=signatures()["datetime"])
    field = {"infer": "data", "v1_predict": "instances", "invocations": "dataframe_records"}[kind]
    status, answer = send(model, {field: [{"born": "2024-01-01"}], "params": {"day": text}}, kind=kind)
    assert status == 400 or answer["code"] == "invalid_request"
    assert "day" in str(answer)
    assert "Roe" not in str(answer)
    good = {field: [{"born": "2024-01-01"}], "params": {"day": "2024-02-01T10:00:00"}}
    assert send(model, good, kind=kind)[0] == 200
