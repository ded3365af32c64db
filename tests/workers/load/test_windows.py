"""Models as MLflow logs them on Windows: their MLmodel files name paths with backslashes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from modelhub.serving import ModelhubModelService
from modelhub.serving.protocol.worker_spec import WorkerSpec
from modelhub.serving.workers.load.mlflow import load
from support.code_models import save_code_model
from support.gateway_process import Gateway
from support.quiet_mlflow import quiet
from support.served_calls import columns, outputs
from support.v2_client import tensor

SOURCE = """
import mlflow

class Own(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.said = open(context.artifacts["greeting"]).read() + open(context.artifacts["nested"] + "/name").read()

    def predict(self, context, model_input, params=None):
        return [self.said] * len(model_input)
"""


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory, mlflow_imported: None) -> Path:
    """A model from code with artifacts, its MLmodel rewritten as Windows would have it; its folder is read-only."""
    folder = tmp_path_factory.mktemp("windows")
    (folder / "greeting.txt").write_text("hello ")
    (folder / "nested").mkdir()
    (folder / "nested" / "name").write_text("Ana")
    artifacts = {"greeting": str(folder / "greeting.txt"), "nested": str(folder / "nested")}
    model = save_code_model(folder / "m", SOURCE, artifacts=artifacts, signature=columns(x="double"))
    mlmodel = yaml.safe_load((model / "MLmodel").read_text())
    pyfunc = mlmodel["flavors"]["python_function"]
    pyfunc["model_code_path"] = "C:\\\\Users\\Ana\\" + os.path.basename(pyfunc["model_code_path"])
    for artifact in pyfunc["artifacts"].values():
        artifact["path"] = artifact["path"].replace("/", "\\")
        artifact["uri"] = "C:\\Users\\Ana\\file"
    (model / "MLmodel").write_text(yaml.safe_dump(mlmodel, allow_unicode=True))
    model.chmod(0o555)
    return model


def test_it_loads_and_answers(logged: Path) -> None:
    before = sorted(logged.rglob("*"))
    with quiet():
        model = load(WorkerSpec("m", "1", 0, 0, "", "", str(logged), "", "/"))
    assert outputs(model, tensor("x", "FP64", [1], [1]))["output-0"].data == [b"hello Ana"]
    assert sorted(logged.rglob("*")) == before


def test_a_service_loads_it_too(logged: Path) -> None:
    service = ModelhubModelService("m", str(logged))
    with quiet():
        service.load()
        assert service.predict({"data": [{"x": 1}]})["data"] == ["hello Ana"]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_worker_serves_it(gateway: Callable[..., Gateway], logged: Path, start: str) -> None:
    running = gateway({"models": [{"name": "m", "uri": str(logged), "start": start}]})
    running.wait_ready()
    assert running.infer("m", [tensor("x", "FP64", [1], [1])]).json()["outputs"][0]["data"] == ["hello Ana"]


def test_a_backslash_that_is_part_of_a_name_stays(tmp_path: Path, mlflow_imported: None) -> None:
    (tmp_path / "a\\b").write_text("odd")
    model = save_code_model(
        tmp_path / "m",
        SOURCE.replace(' + open(context.artifacts["nested"] + "/name").read()', ""),
        artifacts={"greeting": str(tmp_path / "a\\b")},
        signature=columns(x="double"),
    )
    with quiet():
        served = load(WorkerSpec("m", "1", 0, 0, "", "", str(model), "", "/"))
    assert outputs(served, tensor("x", "FP64", [1], [1]))["output-0"].data == [b"odd"]
