"""Loading what services serve: the model itself, a class that the configuration names, a script's object.

`load_service` is what `ModelhubModelService.load` does, in a user's script as in a worker; `find_service` and
`from_type` are for `loading.load`, which comes here for everything that is not plain pyfunc.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from typing import Any, Callable, Dict, List, Optional

from ..protocol.errors import LoadError, NotSupported, ServingError
from ..protocol.signature import Signature, signature_from_mlmodel
from ..protocol.worker_spec import WorkerSpec
from . import script
from .async_executor import AsyncExecutor
from .dialects import add_dialects
from .loading import read_mlmodel, served_from
from .local_model import ensure_local
from .mlflow_advice import without_advice
from .served import ServedModel
from .services import ModelhubModelService


def load_service(service: ModelhubModelService) -> None:
    """Bring the service's model here, load it, make the service ready. Nothing while a script is run once more."""
    if script.rerunning():
        return
    if not service.run_uri and not service.model_path:
        raise LoadError(f"model {service.name} has no URI: give run_uri, or override load() to load something else")
    if not service.model_path or not os.path.isdir(service.model_path):
        found = ensure_local(service.run_uri)
        service.model_path, service.version = found.path, found.version or service.version
    service.__dict__.pop("_defaults", None)
    service.loaded_model = load_model(service.model_path, service.model_type)
    service.ready = True


def load_model(path: str, model_type: str) -> Any:
    """The native estimator (sklearn), the pipeline (transformer), or, for any other type, the pyfunc model."""
    # Set before the import: mlflow 3 starts a telemetry thread then.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    if model_type == "sklearn":
        import mlflow.sklearn

        return mlflow.sklearn.load_model(path)
    if model_type in ("transformer", "transformers"):
        import mlflow.transformers

        return mlflow.transformers.load_model(path, return_type="pipeline")
    import mlflow.pyfunc

    # The warnings compare requirements, which takes a second.
    with without_advice():
        model = mlflow.pyfunc.load_model(path, suppress_warnings=True)
    return _taking_text(model, path)


def _taking_text(model: Any, path: str) -> Any:
    """The pyfunc model; where its signature is one named column of strings, `predict` takes plain text as well.

    Services call `loaded_model.predict("…")`, and MLflow takes that only where the column has no name.
    """
    signature = signature_from_mlmodel(read_mlmodel(path))
    columns = signature.inputs if signature is not None else []
    if len(columns) != 1 or columns[0].kind != "column" or columns[0].type != "string" or not columns[0].named:
        return model
    name, predict = columns[0].name, model.predict

    def predict_text_too(data: Any, *args: Any, **kwargs: Any) -> Any:
        texts = [data] if isinstance(data, str) else data
        if isinstance(texts, list) and texts and all(isinstance(each, str) for each in texts):
            import pandas as pd

            data = pd.DataFrame({name: texts})
        return predict(data, *args, **kwargs)

    model.predict = predict_text_too
    return model


def served_by(service: ModelhubModelService, spec: Optional[WorkerSpec]) -> ServedModel:
    """The service's loaded model with the ways in and out that it would have without a class around it."""
    model = _callable(service.loaded_model, service.model_type)
    known = spec or WorkerSpec(service.name, service.version or "1", 0, 0, "", "", "", "", "")
    if service.model_path and os.path.isfile(os.path.join(service.model_path, "MLmodel")):
        return served_from(model, service.model_path, known)
    served = ServedModel(
        model,
        known.name,
        known.version,
        Signature(),
        "modelhub_service",
        max_inflated=known.max_inflated,
        image=known.image,
        pdf=known.pdf,
    )
    add_dialects(served)
    return served


def from_type(spec: WorkerSpec) -> ServedModel:
    """A model without a service whose `model_type` is not pyfunc."""
    service = ModelhubModelService(spec.name, spec.model_path, spec.model_type)
    service.load()
    return served_by(service, spec)


def find_service(spec: WorkerSpec) -> ModelhubModelService:
    """The service of this worker, loaded: the script's, or an instance of the class that `spec.service` names."""
    if spec.service_object:
        service = script.receive(spec.script) if spec.script is not None else script.TABLE[spec.service_object]
        if spec.model_path:
            service.model_path = spec.model_path
    else:
        service = _make(_find_class(spec.service), spec)
        service.model_path = spec.model_path
        service.version = service.version or spec.version
    return loaded(service)


def loaded(service: ModelhubModelService) -> ModelhubModelService:
    """The service after its own `load`, unless it is loaded. Raises LoadError if it says that it is not ready."""
    if service.ready:
        return service
    result: Any = service.load()
    if inspect.isawaitable(result):
        result = AsyncExecutor.run_async(_awaited, result)
    if result is False:
        raise LoadError(f"load() of {type(service).__name__} returned False")
    service.ready = True  # a load() of the user's own need not say so
    return service


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def _find_class(target: str) -> Callable[..., Any]:
    module_name, _, path = target.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # a module that the service's own module imports
        first = ", ".join(entry for entry in sys.path[:3] if entry)
        raise LoadError(
            f"service {target}: no module {error.name}; set pythonpath to the folder that holds it "
            f"(first looked in: {first})"
        ) from None
    for part in path.split("."):
        if not hasattr(found, part):
            names = sorted(name for name, value in vars(found).items() if inspect.isclass(value))
            raise LoadError(f"service {target}: {module_name} has no {path}; its classes: {', '.join(names[:20])}")
        found = getattr(found, part)
    if not (inspect.isclass(found) and issubclass(found, ModelhubModelService)):
        raise LoadError(f"service {target} is no ModelhubModelService: make it a class that inherits from that")
    return found


def _make(cls: Callable[..., Any], spec: WorkerSpec) -> ModelhubModelService:
    known = {
        "name": spec.name,
        "run_uri": spec.model_path,
        "model_uri": spec.model_path,
        "model_type": spec.model_type,
    }
    parameters = inspect.signature(cls).parameters.values()
    given: Dict[str, Any] = {each.name: known[each.name] for each in parameters if each.name in known}
    missing: List[str] = [
        each.name
        for each in parameters
        if each.name not in known
        and each.default is each.empty
        and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    if missing:
        raise LoadError(
            f"service {spec.service}: its __init__ wants {', '.join(missing)}, and only name, run_uri and model_type "
            "are given: give the others defaults"
        )
    service: ModelhubModelService = cls(**given)
    if not hasattr(service, "loaded_model"):
        raise LoadError(f"service {spec.service}: its __init__ does not call super().__init__(name, run_uri)")
    return service


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


def _callable(model: Any, model_type: str) -> Any:
    if model is None:
        return NoModel()
    if model_type in ("transformer", "transformers") and callable(model):
        return NativeModel(model, _first_column)
    if model_type == "sklearn":
        return NativeModel(model.predict, lambda data: _samples(data, model))
    return model


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


def describe(error: BaseException) -> str:
    """One line for people about a load that failed."""
    return error.message if isinstance(error, ServingError) else f"{type(error).__name__}: {error}"
