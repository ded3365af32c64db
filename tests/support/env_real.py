"""Real models in real environments of other library versions: built, then used by a worker's kind of process."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

from modelhub.serving.gateway.environments import Environment, Environments

_USE = """
import json, sys
sys.path.append(sys.argv[1])
import mlflow.pyfunc, mlflow.sklearn, numpy, pandas, sklearn
from sklearn.linear_model import LogisticRegression
rows = pandas.DataFrame({"x": [0.0, 1.0, 2.0, 3.0]})
mlflow.sklearn.save_model(LogisticRegression().fit(rows, [0, 0, 1, 1]), sys.argv[2], pip_requirements=["mlflow"])
predictions = mlflow.pyfunc.load_model(sys.argv[2]).predict(rows)
import msgpack, orjson, zmq
print("USED" + json.dumps({
    "python": "%d.%d" % sys.version_info[:2], "mlflow": mlflow.__version__, "numpy": numpy.__version__,
    "pandas": pandas.__version__, "scikit-learn": sklearn.__version__, "predictions": predictions.tolist(),
    "kit": sorted(module.__name__ for module in (msgpack, orjson, zmq) if module.__file__.startswith(sys.argv[1])),
}))
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


def use(environment: Environment, folder: Path) -> dict[str, Any]:
    """Fit, save, load and predict there, with the kit last on the path; returns versions and predictions."""
    command = [str(environment.python), "-W", "ignore", "-c", _USE, str(environment.kit), str(folder / "saved")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, cwd=folder)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.rpartition("USED")[2])
    return answer
