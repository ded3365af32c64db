"""What a fork server imports for a model, and which models must not be forked."""

from __future__ import annotations

from collections.abc import Iterable

#: Every fork server imports these. The first is primed, and so are others (workers/start/priming.py).
BASE = ["modelhub.serving.workers.start.serve", "modelhub.serving.workers.load.mlflow", "mlflow.pyfunc"]

#: Flavour in MLmodel -> modules that are safe to hold in a process that is forked.
SAFE: dict[str, list[str]] = {
    "sklearn": ["sklearn", "mlflow.sklearn"],
    "xgboost": ["xgboost", "mlflow.xgboost"],
    "lightgbm": ["lightgbm", "mlflow.lightgbm"],
    "pytorch": ["torch", "mlflow.pytorch"],
    "transformers": ["torch", "transformers", "mlflow.transformers"],
    "sentence_transformers": ["torch", "transformers", "mlflow.sentence_transformers"],
    "statsmodels": ["statsmodels", "mlflow.statsmodels"],
}

#: Flavours whose libraries start threads when they are imported or loaded.
UNSAFE = {"onnx": "onnxruntime", "tensorflow": "tensorflow", "keras": "tensorflow"}


def modules_for(flavors: Iterable[str]) -> list[str]:
    """The modules to import before a worker of this model is forked, most general first."""
    found = list(BASE)
    for flavour in flavors:
        found.extend(name for name in SAFE.get(flavour, ()) if name not in found)
    return found


def why_not_fork(flavors: Iterable[str]) -> str:
    """The reason why this model needs a fresh interpreter; "" if it may be forked."""
    for flavour in flavors:
        if flavour in UNSAFE:
            return f"its flavour {flavour} ({UNSAFE[flavour]}) keeps threads, and forking those is unsafe"
    return ""
