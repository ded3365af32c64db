"""Models of Python 3.9, 3.10 and 3.12 with two MLflows, each in its own environment. A missing Python is a failure."""

from __future__ import annotations

from pathlib import Path

import pytest
from env_parts import make_model
from env_real import build, use

OLD = {"mlflow": "2.9.2", "scikit-learn": "1.2.2", "numpy": "1.26.4", "pandas": "1.5.3"}
NEW = {"mlflow": "3.10.0", "scikit-learn": "1.7.2", "numpy": "2.3.3", "pandas": "2.3.2"}


@pytest.mark.timeout(600)  # 200 MB of downloads each, the first time
@pytest.mark.parametrize(("python", "pins"), [("3.9", OLD), ("3.10", OLD), ("3.12", NEW)])
def test_a_model_gets_its_own_python_and_libraries(tmp_path: Path, python: str, pins: dict[str, str]) -> None:
    requirements = "".join(f"{name}=={version}\n" for name, version in pins.items())
    environment, _ = build(tmp_path / "state", make_model(tmp_path / "m", requirements, python=python))
    assert environment.label.startswith(f"{python} ")
    assert environment.python_version.startswith(f"{python}.")
    assert environment.kit is not None
    assert environment.kit.name.startswith(f"{python}-")
    used = use(environment, tmp_path)
    assert {name: used[name] for name in pins} == pins
    assert (used["python"], used["predictions"]) == (python, [0, 0, 1, 1])
