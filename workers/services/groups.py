"""Several services that are loaded together, and what a gateway is told of a script's services.

`ModelServiceGroup` is a public name; `ModelServer.start` turns what it was given into the content of a
configuration (config/settings.py) with `collect`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Union

from ...protocol.errors import ConfigError, LoadError
from .base import ModelhubModelService
from .loaded import describe, loaded

#: A service, or a plain entry: {"name": …, "uri": …} with the keys of an entry in a configuration file.
Model = Union[ModelhubModelService, Mapping[str, Any]]


class ModelServiceGroup:
    """Services and plain models that share a loading policy and a memory budget.

    models: services, or mappings with the keys of an entry in a configuration file.
    load: eager (all at start) or lazy (each at its first request).
    memory_budget: of all its workers together, such as "6GiB"; the least recently used idle model goes first.
    idle_timeout: such as "15m"; a lazy model without a request for so long is unloaded.
    max_loaded: models loaded at once at most.
    preload_order: names of models to load at start in this order, those of a lazy group too.
    parallel_loads: loads at once at most.
    """

    def __init__(
        self,
        models: Sequence[Model],
        load: str = "eager",
        memory_budget: Union[str, int, None] = None,
        idle_timeout: Union[str, float, None] = None,
        max_loaded: Optional[int] = None,
        name: str = "models",
        preload_order: Sequence[str] = (),
        parallel_loads: Optional[int] = None,
    ) -> None:
        if load not in ("eager", "lazy"):
            raise ValueError(f"load={load!r} is unknown: write eager or lazy")
        self.name = name
        self.models = list(models)
        self.load = load
        self.memory_budget = memory_budget
        self.idle_timeout = idle_timeout
        self.max_loaded = max_loaded
        self.preload_order = list(preload_order)
        self.parallel_loads = parallel_loads

    def __iter__(self) -> Iterator[Model]:
        return iter(self.models)

    def load_models(self) -> None:
        """Load every service of the group now; a lazy group's are left for their first request.

        Tries all of them, then raises LoadError that names each one that failed.
        """
        if self.load == "eager":
            load_all(each for each in self.models if isinstance(each, ModelhubModelService))

    def settings(self) -> Dict[str, Any]:
        """The keys of a group in a configuration file, without its models."""
        found = {
            "name": self.name,
            "load": self.load,
            "memory_budget": self.memory_budget,
            "idle_timeout": self.idle_timeout,
            "max_loaded": self.max_loaded,
            "preload_order": self.preload_order or None,
            "parallel_loads": self.parallel_loads,
        }
        return {key: value for key, value in found.items() if value is not None}


def load_all(services: Iterable[ModelhubModelService]) -> None:
    """Load those that are not loaded. Raises LoadError with a line for each that failed."""
    failed: List[str] = []
    cause: Optional[Exception] = None
    for service in services:
        try:
            loaded(service)
        except Exception as error:
            cause = cause or error
            failed.append(f"model {service.name} could not be loaded: {describe(error)}")
    if failed:
        raise LoadError("\n".join(failed)) from cause


@dataclass
class Collected:
    """What `ModelServer` serves: the content of a configuration, and the service objects by their names."""

    models: List[Dict[str, Any]] = field(default_factory=list)
    groups: List[Dict[str, Any]] = field(default_factory=list)
    services: Dict[str, ModelhubModelService] = field(default_factory=dict)
    #: Names of those that are to be loaded at their first request only.
    lazy: List[str] = field(default_factory=list)


def collect(models: Any) -> Collected:
    """Services, plain entries and groups, one or a list of them. Raises ConfigError."""
    found = Collected()
    for each in _listed(models):
        if isinstance(each, ModelServiceGroup):
            entries = [_entry(found, model, each.load == "lazy") for model in each]
            found.groups.append({**each.settings(), "models": entries})
        else:
            found.models.append(_entry(found, each, False))
    if not found.models and not found.groups:
        raise ConfigError(
            "nothing to serve: give ModelServer a list of services, ModelServer(models=[service]).start()"
        )
    return found


def _listed(models: Any) -> List[Any]:
    if models is None:
        return []
    if isinstance(models, (ModelhubModelService, ModelServiceGroup, Mapping)):
        return [models]
    return list(models)


def _entry(found: Collected, model: Any, lazy: bool) -> Dict[str, Any]:
    if isinstance(model, Mapping):
        return dict(model)
    if not isinstance(model, ModelhubModelService):
        raise ConfigError(
            f"{type(model).__name__} is no model: give services (ModelhubModelService), groups, "
            'or mappings such as {"name": "iris", "uri": "models:/iris@champion"}'
        )
    known = found.services.get(model.name)
    if known is model:
        raise ConfigError(f"the service {model.name!r} is given twice")
    if known is not None:
        raise ConfigError(f"two services are called {model.name!r}: give each a name of its own")
    found.services[model.name] = model
    if lazy:
        found.lazy.append(model.name)
    cls = type(model)
    entry: Dict[str, Any] = {"name": model.name, "service": f"{cls.__module__}:{cls.__name__}"}
    if isinstance(model.run_uri, str) and model.run_uri:
        entry["uri"] = model.run_uri
    if model.version:
        entry["version"] = model.version
    entry.update(model.settings)
    return entry
