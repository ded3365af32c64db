"""The service of a worker: an instance of the class that the configuration names, or a script's object."""

from __future__ import annotations

import importlib
import inspect
import sys
from typing import Any, Callable, Dict, List

from ...protocol.errors import LoadError
from ...protocol.worker_spec import WorkerSpec
from .base import ModelhubModelService
from .handover import TABLE, receive
from .loaded import loaded


def find_service(spec: WorkerSpec) -> ModelhubModelService:
    """The service of this worker, loaded: the script's, or an instance of the class that `spec.service` names."""
    if spec.service_object:
        service = receive(spec.script) if spec.script is not None else TABLE[spec.service_object]
        if spec.model_path:
            service.model_path = spec.model_path
    else:
        service = _make(_find_class(spec.service), spec)
        service.model_path = spec.model_path
        service.version = service.version or spec.version
    return loaded(service)


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
