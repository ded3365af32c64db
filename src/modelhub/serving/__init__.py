"""ModelHub Serving: many MLflow models behind one port, each in its own process and environment.

Light to import: names are loaded when they are used. The import limits the numeric libraries of this
process to one thread, unless they are imported already or the variables are set: a script becomes the
parent of its workers, and a process with threads cannot be forked safely.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .protocol.errors import (
        Cancelled,
        ConfigError,
        DeadlineExceeded,
        Forbidden,
        InvalidRequest,
        LoadError,
        ModelError,
        NotFound,
        NotReady,
        NotSupported,
        QueueFull,
        ServingError,
        TooLarge,
        Unauthenticated,
        UnsupportedMediaType,
        WireError,
        WorkerLost,
    )
    from .workers.script.model_server import ModelServer
    from .workers.services.async_executor import AsyncExecutor
    from .workers.services.base import (
        AutoModelPredictor,
        ImageModelService,
        ModelhubModelService,
        TabularModelService,
        TextModelService,
    )
    from .workers.services.groups import ModelServiceGroup

__version__ = "0.1.0"

__all__ = [
    "AsyncExecutor",
    "AutoModelPredictor",
    "Cancelled",
    "ConfigError",
    "DeadlineExceeded",
    "Forbidden",
    "ImageModelService",
    "InvalidRequest",
    "LoadError",
    "ModelError",
    "ModelServer",
    "ModelServiceGroup",
    "ModelhubModelService",
    "NotFound",
    "NotReady",
    "NotSupported",
    "QueueFull",
    "ServingError",
    "TabularModelService",
    "TextModelService",
    "TooLarge",
    "Unauthenticated",
    "UnsupportedMediaType",
    "WireError",
    "WorkerLost",
]

_PLACES: dict[str, str] = {
    "AsyncExecutor": ".workers.services.async_executor",
    "AutoModelPredictor": ".workers.services.base",
    "ImageModelService": ".workers.services.base",
    "ModelServer": ".workers.script.model_server",
    "ModelServiceGroup": ".workers.services.groups",
    "ModelhubModelService": ".workers.services.base",
    "TabularModelService": ".workers.services.base",
    "TextModelService": ".workers.services.base",
}

#: As in gateway/places/variables.py; read by numeric libraries when they are imported.
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "TOKENIZERS_PARALLELISM": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}

#: workers/bootstrap.py says so: loaded by its location, whatever else is called modelhub here.
_loaded_by_path = bool(globals().get("__loaded_by_path__"))


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    where = _PLACES.get(name, ".protocol.errors")
    value = getattr(importlib.import_module(where, __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _limit_threads() -> frozenset[str]:
    """Names of the variables that are set now and were not before."""
    if "numpy" in sys.modules or _loaded_by_path:
        return frozenset()
    unset = _ONE_THREAD.keys() - os.environ.keys()
    os.environ.update({variable: _ONE_THREAD[variable] for variable in unset})
    return frozenset(unset)


def _check_parent() -> None:
    """A regular package `modelhub` mixes its files with ours: whichever was installed last has overwritten some."""
    file = getattr(sys.modules.get("modelhub"), "__file__", None)
    if file is None:
        return
    from importlib import metadata

    owner = ""
    for distribution in metadata.distributions():
        if any(str(each) == "modelhub/__init__.py" for each in distribution.files or ()):
            owner = str(distribution.metadata["Name"])
            break
    remove = f"pip uninstall {owner}" if owner else f"remove the package that {file} belongs to"
    raise ImportError(
        f"another package called modelhub ({owner or 'of an unknown distribution'}, {file}) is in the way of "
        f"modelhub-serving: {remove}, then install modelhub-serving again"
    )


if not _loaded_by_path:
    _check_parent()

#: Variables of this process that nobody has set but the import: a gateway passes none of them on.
limits_set_here = _limit_threads()
