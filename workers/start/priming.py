"""Priming: one load and one predict of a tiny model of each flavour, in the fork server, before forking.

The first load in a process imports, compiles and caches far more than the import of a library does;
done once here, every forked worker inherits it. Only models that this file makes itself are run.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from typing import Any, Callable, Dict, List

_LOGGER = logging.getLogger("mlflow")
_SOURCE = """
import mlflow


class Echo(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input


mlflow.models.set_model(Echo())
"""


def prime(modules: List[str]) -> List[str]:
    """Run what fits the modules just imported. Returns what went wrong, a line each; never raises."""
    problems: List[str] = []
    level = _LOGGER.level
    _LOGGER.setLevel(logging.ERROR)  # what it says of saving a model is for people who log models
    for name in modules:
        make = _MAKERS.get(name)
        if name in _TABLES and name in sys.modules:
            try:
                _TABLES[name]()
            except Exception as error:
                problems.append(f"priming {name}: {type(error).__name__}: {error}")
        if make is None or name not in sys.modules:
            continue
        try:
            # in the gateway's own directory: a fork server that is killed here leaves nothing behind
            with tempfile.TemporaryDirectory(prefix="prime-", dir=os.getcwd()) as folder, warnings.catch_warnings():
                warnings.showwarning = lambda *_, **__: None  # MLflow's advice is for people who log models
                path = os.path.join(folder, "model")
                make(path)
                _run(path)
        except Exception as error:
            problems.append(f"priming {name}: {type(error).__name__}: {error}")
    _LOGGER.setLevel(level)
    return problems


def _run(path: str) -> None:
    import json

    from ...protocol.messages import InferRequest
    from ...protocol.worker_spec import WorkerSpec
    from .load import load

    spec = WorkerSpec("prime", "1", 0, 0, "", "", path, "", "/")
    model = load(spec)
    body = {"inputs": [{"name": "input-0", "shape": [2, 2], "datatype": "FP64", "data": [0.0, 1.0, 2.0, 3.0]}]}
    call = model.decode(InferRequest(id=0), json.dumps(body).encode())
    model.encode(call, model.predict(call))


def _signature() -> Any:
    import numpy
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    return ModelSignature(Schema([TensorSpec(numpy.dtype("float64"), (-1, 2))]))


def _pyfunc(path: str) -> None:
    import mlflow

    source = os.path.join(os.path.dirname(path), "echo.py")
    with open(source, "w", encoding="utf-8") as file:
        file.write(_SOURCE)
    mlflow.pyfunc.save_model(path, python_model=source, signature=_signature(), pip_requirements=["mlflow"])


def _sklearn(path: str) -> None:
    import mlflow.sklearn
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    pipeline.fit([[0.0, 0.0], [1.0, 1.0], [2.0, 1.0]], [0, 1, 1])
    # in MLflow's default format, whichever that is: skops takes a second to import
    mlflow.sklearn.save_model(pipeline, path, signature=_signature(), pip_requirements=["mlflow"])


def _transformers() -> None:
    """A thousand patterns for the names of weights, which it compiles with the first model: 0.1 s and 15 MiB."""
    import importlib
    import importlib.util

    name = "transformers.conversion_mapping"  # since transformers 5
    if importlib.util.find_spec(name) is not None:
        getattr(importlib.import_module(name), "get_checkpoint_conversion_mapping", str)("bert")


#: What a library makes once for all its models.
_TABLES: Dict[str, Callable[[], None]] = {"mlflow.transformers": _transformers}
_MAKERS: Dict[str, Callable[[str], None]] = {"mlflow.pyfunc": _pyfunc, "mlflow.sklearn": _sklearn}
