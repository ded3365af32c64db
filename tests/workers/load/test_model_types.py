"""`model_type`: the native estimator of scikit-learn instead of pyfunc; tests/transformer has the pipeline."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from modelhub.serving import ModelhubModelService
from modelhub.serving.protocol.messages import InferRequest
from modelhub.serving.protocol.worker_spec import WorkerSpec
from modelhub.serving.workers.load.mlflow import load
from modelhub.serving.workers.model.served import ServedModel
from support.quiet_mlflow import quiet

IRIS = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}


@pytest.fixture
def of_type(models: Path, mlflow_imported: None) -> Callable[..., ServedModel]:
    """`of_type(model, model_type)`: a model as a worker loads it."""

    def get(path: Path | str, model_type: str) -> ServedModel:
        with quiet():
            return load(WorkerSpec("m", "1", 0, 0, "", "", str(models / path), "", "/", model_type=model_type))

    return get


def ask(model: ServedModel, body: Any) -> Any:
    call = model.decode(InferRequest(id=1, content_type="application/json"), json.dumps(body).encode())
    return json.loads(bytes(model.encode(call, model.predict(call)).body))


def test_sklearn_is_the_native_estimator(of_type: Callable[..., ServedModel]) -> None:
    native, pyfunc = of_type("iris", "sklearn"), of_type("iris", "pyfunc")
    assert type(pyfunc.model).__name__ == "PyFuncModel"
    assert type(native.model).__name__ == "NativeModel"
    assert native.metadata == pyfunc.metadata
    assert ask(native, {"data": [IRIS]}) == ask(pyfunc, {"data": [IRIS]}) == {"statusCode": 200, "data": [0]}
    assert ask(native, json.loads(native.example)) == ask(pyfunc, json.loads(pyfunc.example))


def test_a_service_has_the_estimator(models: Path, mlflow_imported: None) -> None:
    service = ModelhubModelService("m", str(models / "iris"), "sklearn")
    with quiet():
        service.load()
    assert isinstance(service.loaded_model, LogisticRegression)
    answer = service.predict({"data": [IRIS]})
    assert (answer["statusCode"], answer["data"].tolist()) == (200, [0])


@pytest.mark.parametrize("signed", [True, False])
def test_an_estimator_of_texts(of_type: Callable[..., ServedModel], tmp_path: Path, signed: bool) -> None:
    """It gets the texts, and not a table whose column names it would take for them."""
    import mlflow.sklearn
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    texts = ["win money now", "money for nothing", "see you at noon", "the minutes of today"]
    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 1, 0, 0])
    signature = ModelSignature(inputs=Schema([ColSpec(DataType.string, "message")])) if signed else None
    with quiet():
        mlflow.sklearn.save_model(
            pipeline, tmp_path / "m", signature=signature, pip_requirements=[], serialization_format="cloudpickle"
        )
    model = of_type(tmp_path / "m", "sklearn")
    assert ask(model, {"text": "money money"})["data"] == [1]
    assert ask(model, {"text": ["see you", "money"]})["data"] == [0, 1]


def test_any_other_type_is_pyfunc(of_type: Callable[..., ServedModel]) -> None:
    assert type(of_type("iris", "pytorch").model).__name__ == "PyFuncModel"
