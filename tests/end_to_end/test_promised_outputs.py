"""What metadata say of outputs is what every door answers, also where MLflow's signature says something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from modelhub.serving.gateway.grpc.generated import open_inference_pb2 as pb
from support.code_models import save_code_model
from support.doors import DOORS, Case, In, call
from support.gateway_process import Gateway
from support.quiet_mlflow import import_mlflow, quiet

Promised = list[tuple[str, str, list[int]]]

EXAMPLE = pd.DataFrame({"x": [0.5, 2.0], "y": [1.0, 0.0]})
ASKED = [In("x", "FP64", [3], [0.1, 2.0, 0.3]), In("y", "FP64", [3], [1.0, 0.0, 0.5])]
ROWS = [{"x": 0.1, "y": 1.0}, {"x": 2.0, "y": 0.0}, {"x": 0.3, "y": 0.5}]

#: Of each model what `predict` returns, what its metadata say, and what it answers by V2 and as JSON.
MODELS: dict[str, tuple[str, Promised, dict[str, Any], Any]] = {
    "floats": ("model_input['x'].to_numpy()", [("output-0", "FP64", [-1])], {"output-0": [0.1, 2.0, 0.3]}, None),
    "texts": (
        "np.where(model_input['x'] > 1, 'big', 'small')",
        [("output-0", "BYTES", [-1])],
        {"output-0": [b"small", b"big", b"small"]},
        ["small", "big", "small"],
    ),
    "missing-texts": (
        "[None if each == 0.1 else 'big' for each in model_input['x']]",
        [("output-0", "BYTES", [-1])],
        {"output-0": [b"", b"big", b"big"]},
        [None, "big", "big"],
    ),
    "object": (
        "{'sum': (model_input['x'] + model_input['y']).to_numpy(), 'names': ['a'] * len(model_input)}",
        [("sum", "FP64", [-1]), ("names", "BYTES", [-1])],
        {"sum": [1.1, 2.0, 0.8], "names": [b"a"] * 3},
        {"sum": [1.1, 2.0, 0.8], "names": ["a"] * 3},
    ),
    "single-precision": (
        "model_input['x'].tolist()",
        [("output-0", "FP32", [-1])],
        {"output-0": [0.1, 2.0, 0.3]},
        None,
    ),
}


@pytest.fixture(scope="module")
def served(module_gateway: Callable[..., Gateway], tmp_path_factory: pytest.TempPathFactory) -> Gateway:
    """Each model's signature says that it returns whole numbers; the last one's, floats of 32 bits."""
    folder = tmp_path_factory.mktemp("promised")
    import_mlflow()
    import mlflow.sklearn
    from mlflow.models import ModelSignature, infer_signature
    from mlflow.types import ColSpec, Schema
    from sklearn.linear_model import LogisticRegression

    labels = infer_signature(EXAMPLE, np.array([0, 1]))
    singles = ModelSignature(labels.inputs, Schema([ColSpec("float")]))
    for name, (expression, *_) in MODELS.items():
        source = (
            "import mlflow, numpy as np\n"
            "class Own(mlflow.pyfunc.PythonModel):\n"
            "    def predict(self, context, model_input, params=None):\n"
            f"        return {expression}\n"
        )
        signature = singles if name == "single-precision" else labels
        save_code_model(folder / name, source, signature=signature, input_example=EXAMPLE)
    fitted = LogisticRegression().fit(pd.concat([EXAMPLE, EXAMPLE + 3]), [0, 1, 2, 2])
    with quiet():
        mlflow.sklearn.save_model(
            fitted,
            folder / "probabilities",
            pyfunc_predict_fn="predict_proba",
            signature=labels,
            input_example=EXAMPLE,
            pip_requirements=["mlflow"],
            serialization_format="cloudpickle",
        )
    entries = [{"name": name, "uri": str(folder / name), "replicas": 2} for name in [*MODELS, "probabilities"]]
    running = module_gateway({"defaults": {"environment": "shared"}, "server": {"grpc_port": 0}, "models": entries})
    running.wait_ready(timeout=120)
    return running


def metadata(gateway: Gateway, name: str) -> tuple[Promised, Promised]:
    """By both protocols."""
    rest = gateway.get(f"/v2/models/{name}").json()["outputs"]
    said = pb.ModelMetadataResponse.FromString(call(gateway, "ModelMetadata", pb.ModelMetadataRequest(name=name)))
    return (
        [(each["name"], each["datatype"], each["shape"]) for each in rest],
        [(each.name, each.datatype, list(each.shape)) for each in said.outputs],
    )


@pytest.mark.parametrize("name", MODELS)
def test_metadata_say_what_is_answered(served: Gateway, name: str) -> None:
    _, promised, expected, _ = MODELS[name]
    assert metadata(served, name) == (promised, promised)
    for door, ask in DOORS.items():
        outcome = ask(served, Case(name, ASKED))
        assert outcome.code == "OK", outcome.message
        assert [(each, found.datatype) for each, found in outcome.outputs] == [each[:2] for each in promised]
        for output, found in outcome.outputs:
            assert found.shape == [3]
            assert found.data == pytest.approx(expected[output]) if found.datatype != "BYTES" else True, door
            assert found.data == expected[output] if found.datatype == "BYTES" else True, door


@pytest.mark.parametrize("name", MODELS)
def test_and_the_other_doors_answer_the_same(served: Gateway, name: str) -> None:
    _, _, by_v2, as_json = MODELS[name]
    expected = as_json if as_json is not None else by_v2["output-0"]
    data = served.post(f"/v2/models/{name}/infer", {"data": ROWS}).json()["data"]
    predictions = served.post(f"/v1/models/{name}:predict", {"instances": ROWS}).json()["predictions"]
    if name == "object":
        assert data["sum"] == pytest.approx(expected["sum"])
        assert [each["names"] for each in predictions] == data["names"] == expected["names"]
    else:
        assert data == predictions == expected


def test_probabilities_that_were_logged_as_labels(served: Gateway) -> None:
    promised = [("output-0", "FP64", [-1, 3])]
    assert metadata(served, "probabilities") == (promised, promised)
    answers = [ask(served, Case("probabilities", ASKED)) for ask in DOORS.values()]
    assert {(each.outputs[0][1].datatype, tuple(each.outputs[0][1].shape)) for each in answers} == {("FP64", (3, 3))}
    data = served.post("/v2/models/probabilities/infer", {"data": ROWS}).json()["data"]
    predictions = served.post("/v1/models/probabilities:predict", {"instances": ROWS}).json()["predictions"]
    assert [sum(row) for row in data] == pytest.approx([1, 1, 1])
    assert data == predictions == np.reshape(answers[0].outputs[0][1].data, (3, 3)).tolist()


def test_it_is_said_once_however_many_workers_show_it(served: Gateway) -> None:
    text = served.log()
    assert text.count("its signature promises the outputs output-0 INT64[-1]") == len(MODELS)
    assert text.count("is answered with output-0 FP64[-1, 3]: the metadata say that now") == 1
    assert "single-precision/1: its signature" not in text
