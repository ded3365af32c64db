"""Models of Python 3.8 to 3.12 with two MLflows, each in its own environment. A missing Python is a failure."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.env_parts import make_model
from support.env_real import ask, build, environments_of, import_everything, plan, use
from support.gateway_process import Gateway

OLD = {"mlflow": "2.9.2", "scikit-learn": "1.2.2", "numpy": "1.26.4", "pandas": "1.5.3"}
NEW = {"mlflow": "3.10.0", "scikit-learn": "1.7.2", "numpy": "2.3.3", "pandas": "2.3.2"}
OLDEST = {"mlflow": "2.9.2", "scikit-learn": "1.2.2", "numpy": "1.24.4", "pandas": "1.5.3"}
WORLDS = {"3.8": OLDEST, "3.9": OLD, "3.10": OLD, "3.12": NEW}


def lines_of(pins: dict[str, str]) -> str:
    return "".join(f"{name}=={version}\n" for name, version in pins.items())


@pytest.mark.timeout(600)  # 200 MB of downloads each, the first time
def test_each_model_gets_its_own_python_and_libraries_and_all_answer_from_one_gateway(
    tmp_path: Path, gateway: Callable[..., Gateway], models: Path
) -> None:
    expected = {"identity": ("shared", f"{sys.version_info.major}.{sys.version_info.minor}")}
    for python, pins in WORLDS.items():
        model = make_model(tmp_path / python / "empty", lines_of(pins), python=python)
        environment, _ = build(tmp_path / "state", model)
        assert environment.label.startswith(f"{python} ")
        assert environment.python_version.startswith(f"{python}.")
        assert environment.kit is not None
        assert environment.kit.name.startswith(f"{python}-")
        import_everything(environment)
        used = use(environment, tmp_path / python, lines_of(pins))
        assert {name: used[name] for name in pins} == pins
        assert (used["python"], used["predictions"]) == (python, [0, 0, 1, 1])
        expected[f"of-{python}"] = (environment.label, python)
    entries = [{"name": f"of-{python}", "uri": str(tmp_path / python / "saved")} for python in WORLDS]
    entries.append({"name": "identity", "uri": str(models / "identity"), "environment": "shared"})
    running = gateway({"server": {"state_dir": str(tmp_path / "state")}, "models": entries})
    running.wait_ready(timeout=200)
    for python in WORLDS:
        assert ask(running, f"of-{python}") == [0, 0, 1, 1]
    assert environments_of(running) == expected
    table = plan(running)
    for label, _ in expected.values():
        assert label in table
