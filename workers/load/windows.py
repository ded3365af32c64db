r"""Models that were logged on Windows: paths in their MLmodel file have backslashes, which are no separators here.

    flavors:
      python_function:
        model_code_path: C:\Users\ana\model
        artifacts: {weights: {path: artifacts\weights.bin, uri: …}}

MLflow joins them to the model's folder as they are. The folder may be read-only, so MLflow is given another one: links
to all that is in it, and an MLmodel file with the paths as they are here.
"""

from __future__ import annotations

import atexit
import json
import ntpath
import os
import shutil
import tempfile
from typing import Any, Dict

from ...protocol.signature import MLMODEL


def with_slashes(path: str, mlmodel: Dict[str, Any]) -> str:
    """The model's folder, or the one to load in its place."""
    flavors = mlmodel.get("flavors")
    corrected = _corrected(flavors, path)
    return path if corrected == flavors else _linked(path, {**mlmodel, "flavors": corrected})


def _corrected(value: Any, path: str) -> Any:
    """With each path of Windows that leads nowhere, and somewhere with slashes, in that form."""
    if isinstance(value, dict):
        return {key: _corrected(each, path) for key, each in value.items()}
    if isinstance(value, list):
        return [_corrected(each, path) for each in value]
    if not isinstance(value, str) or "\\" not in value or os.path.exists(os.path.join(path, value)):
        return value
    # Of an absolute one only the name counts: MLflow has copied the file into the folder.
    there = ntpath.basename(value) if ntpath.isabs(value) else value.replace("\\", "/")
    return there if there and os.path.exists(os.path.join(path, there)) else value


def _linked(path: str, mlmodel: Dict[str, Any]) -> str:
    """In a worker below its own folder, which ends with it; elsewhere until the process ends."""
    in_worker = bool(os.environ.get("MODELHUB_WORKER"))
    folder = tempfile.mkdtemp(prefix="model-", dir=os.getcwd() if in_worker else None)
    if not in_worker:
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in os.listdir(path):
        if name != MLMODEL:
            os.symlink(os.path.join(os.path.abspath(path), name), os.path.join(folder, name))
    with open(os.path.join(folder, MLMODEL), "w", encoding="utf-8") as file:
        json.dump(mlmodel, file, ensure_ascii=False)  # which is YAML too
    return folder
