"""What `model_type` loads in the place of a pyfunc model: an estimator, a pipeline - or a service's nothing at all."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, Optional

from ...protocol.errors import NotSupported
from .traces import settle_tracing

#: All values of `model_type` that are not pyfunc.
NATIVE = ("sklearn", "transformer", "transformers")


def load_native(path: str, model_type: str) -> Any:
    """The estimator (sklearn) or the pipeline (transformer) in a model directory."""
    # Set before the import: mlflow 3 starts a telemetry thread then.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    if model_type == "sklearn":
        import mlflow.sklearn

        settle_tracing()
        return mlflow.sklearn.load_model(path)
    import mlflow.transformers

    settle_tracing()
    return mlflow.transformers.load_model(path, return_type="pipeline")


def as_pyfunc(model: Any, model_type: str) -> Any:
    """A model that was loaded as this type, with pyfunc's `predict`; for None one that answers nothing."""
    if model is None:
        return NoModel()
    if model_type in ("transformer", "transformers") and callable(model):
        return NativeModel(model, _first_column)
    if model_type == "sklearn":
        return NativeModel(model.predict, lambda data: _samples(data, model))
    return model


class NativeModel:
    """An estimator or a pipeline with pyfunc's `predict(data, params=…)`."""

    def __init__(self, call: Callable[..., Any], argument: Callable[[Any], Any]) -> None:
        """`argument`: what pyfunc's predict is given to what `call` takes."""
        self._call = call
        self._argument = argument

    def predict(self, data: Any, params: Optional[Dict[str, Any]] = None) -> Any:
        return self._call(self._argument(data), **(params or {}))


class NoModel:
    """Stands where a service has loaded no model of its own and is asked for one."""

    def predict(self, data: Any, params: Optional[Dict[str, Any]] = None) -> Any:
        raise NotSupported("the service has loaded no model, and answers no requests of this kind itself")


def _samples(data: Any, estimator: Any) -> Any:
    """What an estimator takes. One fitted on texts, and not on a table, would take a table's column names for texts."""
    if isinstance(data, str):
        return [data]
    if hasattr(data, "columns") and len(data.columns) == 1 and not hasattr(estimator, "feature_names_in_"):
        column = data.iloc[:, 0]
        return column if column.dtype.kind == "O" or str(column.dtype) == "str" else data
    return data


def _first_column(data: Any) -> Any:
    """What a pipeline takes: a list. Of a table with one column, that column; of others, records."""
    if hasattr(data, "columns"):
        return data.iloc[:, 0].tolist() if len(data.columns) == 1 else data.to_dict("records")
    return data.tolist() if hasattr(data, "tolist") else data
