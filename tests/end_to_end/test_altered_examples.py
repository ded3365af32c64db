"""An input example that cannot be said in full fails no model; one that can, and fails, does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from support.code_models import save_code_model
from support.gateway_process import Gateway
from support.quiet_mlflow import import_mlflow
from support.v2_client import tensor

CABINS = """
import mlflow

class Own(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        assert model_input["age"].notna().all(), "no ages"
        return [len(model_input["cabin"])] * len(model_input)
"""
EXAMPLES = {
    "some-missing": {"cabin": ["C85", None], "age": [1.0, 2.0]},
    "all-missing": {"cabin": [None, None], "age": [1.0, 2.0]},
    "fails": {"cabin": ["C85"], "age": [float("nan")]},
}


def test_a_model_is_ready_whatever_its_example_lacks(gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    import_mlflow()
    signature = ModelSignature(Schema([ColSpec("string", "cabin", required=False), ColSpec("double", "age")]))
    for name, columns in EXAMPLES.items():
        frame = pd.DataFrame(columns).astype({"cabin": object})
        save_code_model(tmp_path / name, CABINS, signature=signature, input_example=frame)
    models: list[dict[str, Any]] = [{"name": name, "uri": str(tmp_path / name)} for name in EXAMPLES]
    running = gateway({"models": models, "server": {"readiness": ["some-missing", "all-missing"]}})
    running.wait_ready()
    cabins = tensor("cabin", "BYTES", [1], ["C85"])
    for name in ("some-missing", "all-missing"):
        answer = running.infer(name, [cabins, tensor("age", "FP64", [1], [1.0])])
        assert answer.json()["outputs"][0]["data"] == [1]
    running.wait_log("its own input example fails: AssertionError: no ages")
    assert running.get("/v2/models/fails/ready").status == 503
