"""Two worlds in one Python: a model of scikit-learn 1.2 beside the shared environment's 1.7 or later."""

from __future__ import annotations

from pathlib import Path

import pytest
from env_parts import make_model
from env_real import build, use

REQUIREMENTS = "mlflow==2.9.2\nscikit-learn==1.2.2\nnumpy==1.26.4\npandas==1.5.3\n"


@pytest.mark.timeout(300)  # 200 MB of downloads the first time
def test_a_model_of_2023_gets_the_libraries_it_was_logged_with(tmp_path: Path) -> None:
    model = make_model(tmp_path / "legacy", REQUIREMENTS, python="3.11")
    environment, lines = build(tmp_path / "state", model)
    reasons = next(line for line in lines if "instead of the shared one" in line)
    assert "scikit-learn==1.2.2, here 1." in reasons
    assert any("No module named 'pkg_resources'); trying with setuptools<81" in line for line in lines)
    assert use(environment, tmp_path) == {
        "python": "3.11",
        "mlflow": "2.9.2",
        "numpy": "1.26.4",
        "pandas": "1.5.3",
        "scikit-learn": "1.2.2",
        "predictions": [0, 0, 1, 1],
        "kit": ["msgpack", "orjson", "zmq"],
    }
