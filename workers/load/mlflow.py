"""Loading a model in a worker: from a local MLflow model directory to a `ServedModel`.

Only ever from a local path: no tracking server, no credentials, no network (the gateway's fetcher got
the files). Works with mlflow 2.9 on Python 3.8 as with today's; mlflow and whatever the model needs come
from the model's own environment.
"""

from __future__ import annotations

import functools
import os
import sys
from importlib import metadata
from typing import Any, Dict, List, Tuple

from ...protocol.errors import LoadError, ServingError
from ...protocol.messages import InferRequest
from ...protocol.signature import (
    MLMODEL,
    Signature,
    parse_mlmodel,
    platform_from_mlmodel,
    signature_from_mlmodel,
    task_from_mlmodel,
)
from ...protocol.worker_spec import WorkerSpec
from ...protocol.yaml_files import MAX_SIZE
from ..dialects.table import DIALECTS
from ..model.served import ServedModel
from .advice import without_advice
from .categories import restore_categories
from .example import Example, read_example
from .native import NATIVE, as_pyfunc, load_native
from .traces import settle_tracing
from .windows import with_slashes

#: Modules whose version tells something about a model's behaviour, with their distributions.
_LIBRARIES: Dict[str, str] = {
    "catboost": "catboost",
    "lightgbm": "lightgbm",
    "mlflow": "mlflow",
    "numpy": "numpy",
    "onnxruntime": "onnxruntime",
    "pandas": "pandas",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "skops": "skops",
    "tensorflow": "tensorflow",
    "torch": "torch",
    "transformers": "transformers",
    "xgboost": "xgboost",
}


def load(spec: WorkerSpec) -> ServedModel:
    """The model that `spec` names. Raises LoadError, or whatever the model's own loading code raises."""
    path = spec.model_path
    mlmodel = read_mlmodel(path)
    if spec.model_type in NATIVE:
        native = load_native(with_slashes(path, mlmodel), spec.model_type)
        return served_from(as_pyfunc(native, spec.model_type), path, spec)
    if "python_function" not in (mlmodel.get("flavors") or {}):
        raise LoadError(f"the model in {path} has no python_function flavour: log it with a flavour that has one")
    signature_from_mlmodel(mlmodel)  # what is wrong with it is said before MLflow stumbles over it
    return served_from(load_pyfunc(path), path, spec)


def load_pyfunc(path: str) -> Any:
    """MLflow's own model of a model directory."""
    # Set before the import: mlflow 3 starts a telemetry thread then.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow.pyfunc

    settle_tracing()
    # The warnings compare requirements, which takes a second; the environment was built from them.
    with without_advice():
        model = mlflow.pyfunc.load_model(with_slashes(path, read_mlmodel(path)), suppress_warnings=True)
    restore_categories(model)
    return model


def served_from(model: Any, path: str, spec: WorkerSpec) -> ServedModel:
    """A loaded model, with pyfunc's `predict`, and what its MLmodel file says of it."""
    mlmodel = read_mlmodel(path)
    signature = signature_from_mlmodel(mlmodel)
    example = read_example(path, mlmodel, signature)
    known = signature or Signature()
    known.example_kind, known.task = example.kind, task_from_mlmodel(mlmodel)
    served = ServedModel(
        model,
        spec.name,
        spec.version,
        known,
        platform_from_mlmodel(mlmodel),
        max_inflated=spec.max_inflated,
        versions=library_versions(),
        streams=_streams(mlmodel, model),
        image=spec.image,
        pdf=spec.pdf,
        dialects=DIALECTS,
    )
    if not known.inputs and not known.from_type_hint:
        served.metadata["inputs"] = example.inputs
    served.example, served.example_altered = _checked_example(served, example)
    return served


def _streams(mlmodel: Dict[str, Any], model: Any) -> bool:
    """Has the model a `predict_stream` of its own? Every pyfunc model has one that may only say that it cannot."""
    flavour = (mlmodel.get("flavors") or {}).get("python_function") or {}
    return bool(flavour.get("streamable")) and callable(getattr(model, "predict_stream", None))


def read_mlmodel(path: str) -> Dict[str, Any]:
    """The parsed MLmodel file of a model directory. Raises LoadError."""
    file = os.path.join(path, MLMODEL)
    try:
        with open(file, "rb") as opened:
            return parse_mlmodel(opened.read(MAX_SIZE + 1), file)
    except OSError as error:
        raise LoadError(f"{path} is not an MLflow model directory: {error.strerror}: {MLMODEL}") from None


def library_versions() -> Dict[str, str]:
    """Versions of the known libraries that are imported in this process."""
    found: Dict[str, str] = {}
    candidates: List[str] = [name for name in _LIBRARIES if name in sys.modules]
    for name in candidates:
        try:
            found[name] = _installed_version(_LIBRARIES[name])
        except metadata.PackageNotFoundError:
            found[name] = str(getattr(sys.modules[name], "__version__", "?"))
    return found


@functools.lru_cache(maxsize=None)
def _installed_version(distribution: str) -> str:
    """Two milliseconds each; a fork server's priming asks, and its workers inherit the answers."""
    return metadata.version(distribution)


def _checked_example(served: ServedModel, example: Example) -> Tuple[bytes, str]:
    """The first body that the model's own signature takes, and what is altered in it: nobody should be shown a
    request that fails. (b"", "") if there is none."""
    refused = ""
    for body, altered in example.bodies:
        try:
            served.decode(InferRequest(id=0), body)
        except ServingError as error:
            refused = refused or error.message
        else:
            return body, altered
    if refused:
        print(f"the model's input example is no valid request and is left out: {refused}", file=sys.stderr)
    return b"", ""
