"""Models whose own modules are named like ours, and an environment that holds another package named `modelhub`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .environments import make_environment

#: Names of our folders, and the most common name there is.
NAMES = ("config", "workers", "protocol", "gateway", "utils")

_MODEL = """
import config, gateway, protocol, utils, workers
import mlflow
import numpy as np


class Sum(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        import workers.inner  # a module of the package, imported late

        own = sum(each.OWN for each in (config, gateway, protocol, utils, workers)) + workers.inner.OWN
        return np.full(np.shape(model_input), own, dtype=np.float32)


mlflow.models.set_model(Sum())
"""

_SAVE = """
import sys, mlflow, numpy as np
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

folder, target, names = sys.argv[1], sys.argv[2], sys.argv[3:]
matrix = Schema([TensorSpec(np.dtype(np.float32), (-1, -1))])
sys.path.insert(0, f"{folder}/code")
mlflow.pyfunc.save_model(
    target,
    python_model=f"{folder}/model.py",
    code_paths=[f"{folder}/code/{name}" for name in names],
    signature=ModelSignature(matrix, matrix),
    pip_requirements=["mlflow"],
)
"""

#: As in the SDK of old: a regular package, with a `serving` of its own.
_OLD_SDK = {
    "modelhub/__init__.py": "WHAT = 'the old SDK'\n",
    "modelhub/clients.py": "CLIENT = 'of the old SDK'\n",
    "modelhub/serving/__init__.py": "raise ImportError('the serving of the old SDK was imported')\n",
}


def save_model_with_clashing_code(folder: Path, target: Path, own: int) -> Path:
    """A model at `target` that answers 6 × `own` from six modules named like ours."""
    code = folder / "code"
    for name in NAMES:
        package = code / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(f"OWN = {own}\n")
        (package / "inner.py").write_text(f"OWN = {own}\n")
    (folder / "model.py").write_text(_MODEL)
    command = [sys.executable, "-W", "ignore", "-c", _SAVE, str(folder), str(target), *NAMES]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, cwd=folder)
    assert done.returncode == 0, done.stderr
    return target


def make_environment_with_old_sdk(folder: Path) -> Path:
    """A venv with everything that the tests' own one has, without modelhub.serving, and with another `modelhub`."""
    return make_environment(folder, _OLD_SDK)
