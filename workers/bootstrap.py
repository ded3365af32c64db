"""First code that runs in a model's environment, started by its path: `python …/workers/bootstrap.py ROLE FD KIT`.

It knows nothing of the environment. It makes `modelhub.serving` importable from the folder that this
file lies in, without putting that folder on `sys.path` (so that a model's own modules named `config`,
`workers` or `protocol` never clash), appends the kit's folder last, and hands over to the role:

    fork-server   FD is its socket to the gateway
    worker        a fresh interpreter; FD holds the WorkerSpec as msgpack
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types
from typing import List

BUNDLE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _parent_package() -> types.ModuleType:
    """The package `modelhub`: the environment's own regular one (an old SDK), else an empty one."""
    spec = importlib.util.find_spec("modelhub")
    if spec is not None and spec.origin is not None:
        try:
            return importlib.import_module("modelhub")
        except Exception as error:
            print(f"the package modelhub of this environment cannot be imported ({error}): going on without it")
    parent = types.ModuleType("modelhub")
    parent.__path__ = list(spec.submodule_search_locations or ()) if spec is not None else []
    sys.modules["modelhub"] = parent
    return parent


def install(kit: str) -> None:
    """Make `modelhub.serving` importable from BUNDLE, and the kit's libraries behind all others."""
    here = os.path.realpath(os.path.dirname(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry or ".") != here]
    if kit:
        sys.path.append(kit)
    parent = _parent_package()
    spec = importlib.util.spec_from_file_location(
        "modelhub.serving", os.path.join(BUNDLE, "__init__.py"), submodule_search_locations=[BUNDLE]
    )
    if spec is None or spec.loader is None:
        raise SystemExit(f"no package at {BUNDLE}: the installation of modelhub-serving is damaged, install it again")
    module = importlib.util.module_from_spec(spec)
    module.__loaded_by_path__ = True  # type: ignore[attr-defined]
    sys.modules["modelhub.serving"] = module
    spec.loader.exec_module(module)
    parent.serving = module  # type: ignore[attr-defined]


def main(arguments: List[str]) -> int:
    role, descriptor, kit = arguments[:3]
    install(kit)
    if role == "fork-server":
        from modelhub.serving.workers.start import fork_server

        return fork_server.main(int(descriptor))
    from modelhub.serving.workers.start import child

    return child.main_spawned(int(descriptor))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
