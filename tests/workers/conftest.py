"""Models for the worker's tests: the shared fixture models loaded in this process, and a few saved here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelhub.serving.protocol.worker_spec import WorkerSpec
from modelhub.serving.workers.load.mlflow import load
from modelhub.serving.workers.model.served import ServedModel
from support.quiet_mlflow import import_mlflow, quiet


def spec(path: Path, **changes: Any) -> WorkerSpec:
    return WorkerSpec(path.name, "3", 0, 0, "", "", str(path), "", "/", **changes)


@pytest.fixture(scope="session")
def mlflow_imported() -> None:
    import_mlflow()


@pytest.fixture(scope="session")
def served(models: Path, mlflow_imported: None) -> Callable[[str], ServedModel]:
    """`served(name)`: a shared fixture model, loaded once."""
    loaded: dict[str, ServedModel] = {}

    def get(name: str) -> ServedModel:
        if name not in loaded:
            with quiet():
                loaded[name] = load(spec(models / name))
        return loaded[name]

    return get


@pytest.fixture(scope="session")
def save(tmp_path_factory: pytest.TempPathFactory, mlflow_imported: None) -> Callable[..., ServedModel]:
    """`save(body, **save_model's)`: a model whose predict has this body, saved by mlflow and loaded again.

    The body sees `model_input` and `params`, numpy as np and pandas as pd.
    """

    def get(body: str, *, predict: str = "self, context, model_input, params=None", **options: Any) -> ServedModel:
        import mlflow.pyfunc

        folder = tmp_path_factory.mktemp("own")
        code = folder / "model_code.py"
        code.write_text(
            "import mlflow, numpy as np, pandas as pd\n"
            "class Own(mlflow.pyfunc.PythonModel):\n"
            f"    def predict({predict}):\n"
            + "".join(f"        {line}\n" for line in body.splitlines())
            + "mlflow.models.set_model(Own())\n"
        )
        with quiet():
            mlflow.pyfunc.save_model(folder / "own", python_model=code, pip_requirements=["mlflow"], **options)
            return load(spec(folder / "own"))

    return get
