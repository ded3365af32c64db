"""A real transformer, text in and embedding out: as pyfunc, as a pipeline, and as a service in a user's script.

`make test-transformer` makes its environment (torch for the CPU, 2 GB) in .venvs/transformer; the gateway has its own.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from support.gateway_process import Gateway
from support.script_process import ScriptProcess

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venvs/transformer/bin/python"
SENTENCES = ["a cat sits on the mat", "a kitten is lying on the rug", "interest rates rose again in the third quarter"]

SCRIPT = """
import sys
from modelhub.serving import ModelServer, TextModelService

class Embedder(TextModelService):
    def predict_text(self, request, headers=None):
        tokens = self.loaded_model(request["text"])[0]
        return {"statusCode": 200, "data": {"tokens": len(tokens), "size": len(tokens[0])}}

if __name__ == "__main__":
    service = Embedder("embedder", sys.argv[1], "transformer")
    service.load()
    ModelServer().start([service])
"""

pytestmark = pytest.mark.timeout(400)


class Models(NamedTuple):
    encoder: str  # runs:/…
    pipeline: Path


@pytest.fixture(scope="module")
def logged(mlflow_server: str, tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models") / "pipeline"
    done = subprocess.run(
        [PYTHON, Path(__file__).with_name("log_models.py"), mlflow_server, folder],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return Models(json.loads(done.stdout.splitlines()[-1])["encoder"], folder)


@pytest.fixture(scope="module")
def served(logged: Models, mlflow_server: str, module_gateway: Callable[..., Gateway]) -> Gateway:
    own: dict[str, Any] = {"environment": str(PYTHON)}
    models = [
        {"name": "encoder", "uri": logged.encoder, **own},
        {"name": "pipeline", "uri": str(logged.pipeline), "model_type": "transformer", **own},
    ]
    running = module_gateway({"models": models}, env={"MLFLOW_TRACKING_URI": mlflow_server})
    running.wait_ready(timeout=300)
    return running


def infer(gateway: Gateway, model: str, body: Any) -> Any:
    answer = gateway.post(f"/v2/models/{model}/infer", body)
    assert answer.status == 200, answer.body
    return answer.json()["data"]


def cosine(left: Any, right: Any) -> float:
    return float(np.dot(left, right) / np.linalg.norm(left) / np.linalg.norm(right))


def test_a_text_becomes_an_embedding(served: Gateway) -> None:
    (one,) = infer(served, "encoder", {"text": SENTENCES[0]})
    assert len(one) == 384
    cat, kitten, money = infer(served, "encoder", {"text": SENTENCES})
    assert np.allclose(one, cat, atol=1e-5)
    assert cosine(cat, kitten) > 0.5 > 0.2 > cosine(cat, money)


def test_other_clients_get_the_same(served: Gateway) -> None:
    (expected,) = infer(served, "encoder", {"text": SENTENCES[0]})
    v1 = served.post("/v1/models/encoder:predict", {"instances": SENTENCES[:1]}).json()["predictions"]
    mlflow = served.post("/models/encoder/invocations", {"inputs": SENTENCES[:1]}).json()["predictions"]
    v2 = served.infer("encoder", [{"name": "input-0", "shape": [1], "datatype": "BYTES", "data": SENTENCES[:1]}]).json()
    assert v2["outputs"][0]["shape"] == [1, 384]
    for found in (v1[0], mlflow[0], v2["outputs"][0]["data"]):
        assert np.allclose(found, expected, atol=1e-5)


def test_model_type_transformer_is_the_pipeline(served: Gateway) -> None:
    """Its answer is one vector per token; their mean is the encoder's."""
    (tokens,) = infer(served, "pipeline", {"text": SENTENCES[0]})
    (expected,) = infer(served, "encoder", {"text": SENTENCES[0]})
    assert cosine(np.mean(tokens[0], axis=0), expected) > 0.999


def test_a_service_with_a_pipeline(logged: Models, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(SCRIPT)
    running = ScriptProcess([str(PYTHON), "app.py", str(logged.pipeline)], tmp_path)
    try:
        running.wait_live(timeout=200)
        running.wait_ready("embedder", timeout=200)
        found = infer(running, "embedder", {"text": SENTENCES[0]})
        assert (found["tokens"], found["size"]) == (8, 384)
        predictions = running.post("/v1/models/embedder:predict", {"instances": SENTENCES[:2]}).json()["predictions"]
        assert [each["size"] for each in predictions] == [384, 384]
        running.stop()
    finally:
        running.kill()
