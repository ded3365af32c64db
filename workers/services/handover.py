"""A user's script as the place where services come from: their table, and the script run once more.

`TABLE` is filled by `ModelServer.start`; a forked worker finds its service there. A worker that had to be
started afresh (the script's process cannot be forked) gets a `handover` instead: which script to run again,
as `__mp_main__` the way multiprocessing does it, and its service without the loaded model, pickled.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import sys
from importlib.machinery import SourceFileLoader
from typing import Any, Dict

from ...protocol.errors import ConfigError, LoadError
from .base import ModelhubModelService
from .rerun import once_more

#: The services of this process's script, by name.
TABLE: Dict[str, ModelhubModelService] = {}

MAIN = "__mp_main__"


def handover(service: ModelhubModelService) -> Dict[str, Any]:
    """What a fresh interpreter needs to have this service. Raises ConfigError."""
    try:
        data = pickle.dumps(service)
    except Exception as error:
        raise ConfigError(
            f"the service {service.name} cannot be handed to a fresh interpreter ({type(error).__name__}: {error}): "
            "define its class at the top of the script, and make what cannot be pickled in load()"
        ) from None
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    file = getattr(main, "__file__", None)
    if not file or not os.path.isfile(file):
        raise ConfigError("this script is no file, and a fresh interpreter cannot run it again: save it as a file")
    return {
        "file": os.path.abspath(file),
        "package": spec.parent if spec is not None else "",
        "argv": list(sys.argv),
        "path": list(sys.path),
        "service": data,
    }


def receive(given: Dict[str, Any]) -> ModelhubModelService:
    """In the fresh interpreter: the service of a `handover`, not loaded. Raises LoadError."""
    sys.argv = list(given["argv"])
    sys.path[:0] = [entry for entry in given["path"] if entry not in sys.path]
    _run(given["file"], given["package"])
    service = pickle.loads(given["service"])  # noqa: S301 - written by this process's own parent
    if not isinstance(service, ModelhubModelService):
        raise LoadError("what the script handed over is no service")
    return service


def _run(file: str, package: str) -> None:
    spec = importlib.util.spec_from_file_location(MAIN, file, loader=SourceFileLoader(MAIN, file))
    if spec is None or spec.loader is None:
        raise LoadError(f"{file} cannot be run again")
    module = importlib.util.module_from_spec(spec)
    module.__package__ = package or None
    sys.modules[MAIN] = sys.modules["__main__"] = module
    with once_more():
        spec.loader.exec_module(module)
