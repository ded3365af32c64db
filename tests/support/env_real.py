"""Real models in real environments of other library versions: built, then used by a worker's kind of process."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from modelhub.serving.gateway.environments.environments import Environment, Environments

from .gateway_process import Gateway
from .v2_client import tensor

_USE = """
import json, sys
sys.path.append(sys.argv[1])
import mlflow.pyfunc, mlflow.sklearn, numpy, pandas, sklearn
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression
rows = pandas.DataFrame({"x": [0.0, 1.0, 2.0, 3.0]})
model = LogisticRegression().fit(rows, [0, 0, 1, 1])
signature = infer_signature(rows, model.predict(rows))
mlflow.sklearn.save_model(model, sys.argv[2], signature=signature, pip_requirements=sys.argv[3:])
predictions = mlflow.pyfunc.load_model(sys.argv[2]).predict(rows)
import msgpack, orjson
print("USED" + json.dumps({
    "python": "%d.%d" % sys.version_info[:2], "mlflow": mlflow.__version__, "numpy": numpy.__version__,
    "pandas": pandas.__version__, "scikit-learn": sklearn.__version__, "predictions": predictions.tolist(),
    "kit": sorted(module.__name__ for module in (msgpack, orjson) if module.__file__.startswith(sys.argv[1])),
}))
"""

_IMPORT = """
import importlib, importlib.util, sys
spec = importlib.util.spec_from_file_location("bootstrap", sys.argv[1])
bootstrap = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bootstrap)
bootstrap.install(sys.argv[2])
for name in sys.argv[3:]:
    importlib.import_module(name)
"""


def build(state_dir: Path, model: Path, **settings: Any) -> tuple[Environment, list[str]]:
    """The environment that `auto` gives a model, and what was reported."""

    async def main() -> Environment:
        environments = Environments(state_dir, report=lines.append, **settings)
        try:
            return await environments.ensure(model, "auto")
        finally:
            await environments.close()

    lines: list[str] = []
    return asyncio.run(main()), lines


def use(environment: Environment, folder: Path, requirements: str) -> dict[str, Any]:
    """Fit, save, load and predict there, with the kit last on the path; returns versions and predictions.

    What is saved, in `folder`/saved, asks for these requirements (lines): it can be served afterwards.
    """
    pins = requirements.split()
    command = [str(environment.python), "-W", "ignore", "-c", _USE, str(environment.kit), str(folder / "saved"), *pins]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, cwd=folder)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.rpartition("USED")[2])
    return answer


def import_everything(environment: Environment) -> None:
    """Import every file of protocol and workers there, as a worker does: with the kit last on the path."""
    serving = Path(__file__).parents[2] / "src" / "modelhub" / "serving"
    files = sorted(path for folder in ("protocol", "workers") for path in (serving / folder).rglob("*.py"))
    names = [".".join(("modelhub.serving", *file.relative_to(serving).with_suffix("").parts)) for file in files]
    bootstrap = str(serving / "workers" / "bootstrap.py")
    command = [str(environment.python), "-c", _IMPORT, bootstrap, str(environment.kit), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert len(names) > 80


def ask(running: Gateway, model: str) -> list[int]:
    """What one of these models answers to the rows that it was fitted with."""
    answer = running.infer(model, [tensor("x", "FP64", [4, 1], [0, 1, 2, 3])])
    assert answer.status == 200, answer.body
    found: list[int] = answer.json()["outputs"][0]["data"]
    return found


def environments_of(running: Gateway) -> dict[str, tuple[str, str]]:
    """Of each model: its environment and the minor version of its Python."""
    return {
        each["name"]: (each["environment"], each["python"].rpartition(".")[0])
        for each in running.get("/status").json()["models"]
    }


def plan(running: Gateway) -> str:
    """What `modelhub env plan` says of the gateway's configuration."""
    config = yaml.safe_load(Path(running.config).read_text())
    command = [str(Path(sys.executable).with_name("modelhub")), "env", "plan", str(running.config)]
    command += ["--state-dir", config["server"]["state_dir"]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return done.stdout
