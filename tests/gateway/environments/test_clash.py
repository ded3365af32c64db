"""Two worlds in one Python: a model of scikit-learn 1.2 beside the shared environment's 1.7 or later, from one YAML."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.env_parts import make_model
from support.env_real import ask, build, environments_of, plan, use
from support.gateway_process import Gateway
from support.v2_client import tensor

REQUIREMENTS = "mlflow==2.9.2\nscikit-learn==1.2.2\nnumpy==1.26.4\npandas==1.5.3\n"


@pytest.mark.timeout(300)  # 200 MB of downloads the first time
def test_a_model_of_2023_answers_beside_one_of_today(
    tmp_path: Path, models: Path, gateway: Callable[..., Gateway]
) -> None:
    state = tmp_path / "state"
    environment, lines = build(state, make_model(tmp_path / "legacy", REQUIREMENTS, python="3.11"))
    reasons = next(line for line in lines if "instead of the shared one" in line)
    assert "scikit-learn==1.2.2, here 1." in reasons
    assert any("No module named 'pkg_resources'); trying with setuptools<81" in line for line in lines)
    assert use(environment, tmp_path, REQUIREMENTS) == {
        "python": "3.11",
        "mlflow": "2.9.2",
        "numpy": "1.26.4",
        "pandas": "1.5.3",
        "scikit-learn": "1.2.2",
        "predictions": [0, 0, 1, 1],
        "kit": ["msgpack", "orjson"],
    }
    entries = [{"name": "legacy", "uri": str(tmp_path / "saved")}, {"name": "iris", "uri": str(models / "iris")}]
    running = gateway({"server": {"state_dir": str(state)}, "models": entries})
    running.wait_ready(timeout=100)
    assert ask(running, "legacy") == [0, 0, 1, 1]
    columns = ("sepal_length", "sepal_width", "petal_length", "petal_width")
    iris = [tensor(name, "FP64", [1, 1], [value]) for name, value in zip(columns, (5.1, 3.5, 1.4, 0.2), strict=True)]
    assert running.infer("iris", iris).json()["outputs"][0]["data"] == [0]
    assert environments_of(running) == {"legacy": (environment.label, "3.11"), "iris": ("shared", "3.11")}
    assert "building" not in running.log(), "what is built is used"
    table = plan(running)
    assert environment.label in table
    assert "scikit-learn==1.2.2" in table
