"""The soak's models: `python bench/soaking/fixtures.py FOLDER TRACKING_URI`.

Each is a pyfunc from code with one habit. `answers.json` says what `iris` answers to which rows; the registered model
`soak` gets the versions 1 and 2, which answer with their number, and the alias `champion` on 1.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import mlflow
import numpy as np
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

CODE = """
import os, signal, time
import mlflow, numpy as np

class Habit(mlflow.pyfunc.PythonModel):
{load}
    def predict(self, context, model_input, params=None):
        {work}
        return model_input
{more}
mlflow.models.set_model(Habit())
"""
SLOW_LOAD = """
    def load_context(self, context):
        if "MODELHUB_WORKER" in os.environ:
            time.sleep(6)
"""
STREAM = """
    def predict_stream(self, context, model_input, params=None):
        count, size = (int(value) for value in np.asarray(model_input).ravel()[:2])
        for number in range(count):
            yield np.full((1, max(size, 1)), number, dtype=np.float32)
"""
#: What predict does: model_input is a float32 array of two dimensions.
WORK = {
    "echo": "pass",
    "slow": "pass",  # six seconds of load
    "words": "pass",  # streams as many pieces as the first value says, of so many values as the second says
    "sleepy": "time.sleep(float(model_input[0, 0]) / 1000)",  # milliseconds
    "printer": "for n in range(int(model_input[0, 0])): print(n, 'x' * int(model_input[0, 1]))",
    "poison": "if model_input[0, 0] == 666: os.kill(os.getpid(), signal.SIGKILL)",
    # a single value is answered with so many MiB
    "large": "if model_input.size == 1: model_input = np.zeros((int(model_input[0, 0]) << 8, 1024), 'f4')",
    "numbered_1": "model_input = np.full((len(model_input), 1), 1, 'f4')",
    "numbered_2": "model_input = np.full((len(model_input), 1), 2, 'f4')",
}


def main(folder: Path, tracking_uri: str) -> None:
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.ERROR)
    matrix = Schema([TensorSpec(np.dtype(np.float32), (-1, -1))])
    how = {"signature": ModelSignature(matrix, matrix), "pip_requirements": ["mlflow", "numpy"]}
    for name, work in WORK.items():
        code = folder / f"{name}_code.py"
        load, more = SLOW_LOAD if name == "slow" else "", STREAM if name == "words" else ""
        code.write_text(CODE.format(work=work, load=load, more=more))
        mlflow.pyfunc.save_model(folder / name, python_model=str(code), **how)
    rows, kinds = load_iris(return_X_y=True)
    rows = rows.astype(np.float32)
    model = LogisticRegression(max_iter=500).fit(rows, kinds)
    columns = Schema([TensorSpec(np.dtype(np.float32), (-1, 4))]), Schema([TensorSpec(np.dtype(np.int64), (-1,))])
    mlflow.sklearn.save_model(
        model,
        folder / "iris",
        signature=ModelSignature(*columns),
        pip_requirements=["mlflow", "scikit-learn", "numpy"],
        serialization_format="cloudpickle",
    )
    pairs = [[row.tolist(), int(model.predict(row[None])[0])] for row in rows]
    (folder / "answers.json").write_text(json.dumps(pairs))
    mlflow.set_tracking_uri(tracking_uri)
    for number in (1, 2):
        code = folder / f"numbered_{number}_code.py"
        mlflow.pyfunc.log_model(name="model", python_model=str(code), registered_model_name="soak", **how)
    mlflow.MlflowClient().set_registered_model_alias("soak", "champion", "1")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
