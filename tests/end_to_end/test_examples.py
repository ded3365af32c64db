"""The examples as a reader would run them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from support.gateway_process import Gateway
from support.processes import descendants, guarded, survivors, until

EXAMPLES = Path(__file__).parents[2] / "examples"
FLOWER = [{"name": "input-0", "shape": [1, 64], "datatype": "FP32", "data": [0.0] * 64}]


@pytest.fixture(scope="module")
def example_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of examples/models.yaml, beside the model folders that it names."""
    folder = tmp_path_factory.mktemp("repository")
    (folder / "examples").mkdir()
    script = [sys.executable, str(EXAMPLES / "demo_models.py"), "--folder", str(folder / ".demo/models")]
    subprocess.run(script, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    return Path(shutil.copy(EXAMPLES / "models.yaml", folder / "examples"))


def test_a_damaged_model_stops_neither_the_others_nor_the_server(
    gateway: Callable[..., Gateway], example_config: Path
) -> None:
    running = gateway(example_config)
    running.wait_ready("wine")
    running.wait_ready("digits")
    running.wait_log("damaged/1 FAILED")

    assert running.get("/v2/health/live").status == 200
    assert running.infer("digits", FLOWER).json()["outputs"][0]["datatype"] == "INT64"

    ready = running.get("/v2/health/ready")
    assert ready.status == 503
    assert ready.json()["ready"] is False
    assert "damaged" in ready.body.decode()
    assert "zip" in ready.body.decode(), "readiness says why"

    refused = running.infer("damaged", FLOWER)
    assert refused.status == 503
    assert "zip" in refused.json()["error"]
    assert running.get("/v2/models/damaged/ready").status == 503


@pytest.mark.timeout(240)
def test_the_demo_calls_every_model_and_serves_until_it_is_interrupted(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.cache is not None
    folder = pytestconfig.cache.mkdir("demo")
    output = folder / "output"
    environment = {**os.environ, "DEMO_FOLDER": str(folder), "PORT": "0", "ONCE": ""}
    with output.open("wb") as stream:
        command = guarded([sys.executable, str(EXAMPLES / "demo.py")])
        demo = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env=environment)
    below: list[psutil.Process] = []
    try:
        until(lambda: demo.poll() is not None or "serving until" in output.read_text(), 180, "the demo serves")
        assert demo.poll() is None, output.read_text()
        below = descendants(demo.pid)
        demo.send_signal(signal.SIGINT)
        assert demo.wait(45) == 0, output.read_text()
    finally:
        demo.kill()
        left = survivors(below, 3)
    assert not left
    for model in ("wine", "digits", "sentiment", "forecast"):
        assert f"POST /v2/models/{model}/infer  200" in output.read_text()
