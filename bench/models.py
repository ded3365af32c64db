"""The benchmark's models, saved by mlflow into a folder: `python bench/models.py FOLDER`. Made once.

`identity` gives back what it gets; `iris` is a LogisticRegression; `batchy` takes 5 ms per call whatever the
number of rows, one call at a time, as a device would; `ten_ms` takes 10 ms per call. Each but `ten_ms` has an
input example of two rows, with which the server may prove that batching is safe.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from pathlib import Path

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

CODE = """
import threading, time
import mlflow

ONE = threading.Lock()

class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        with ONE:
            {work}
        return model_input

mlflow.models.set_model(Model())
"""
WORK = {"identity": "pass", "batchy": "time.sleep(0.005)", "ten_ms": "time.sleep(0.01)"}


def make(folder: Path) -> None:
    import mlflow
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.ERROR)
    example = np.arange(8, dtype=np.float32).reshape(2, 4)
    matrix = Schema([TensorSpec(np.dtype(np.float32), (-1, -1))])
    for name, work in WORK.items():
        with tempfile.TemporaryDirectory() as scratch:
            code = Path(scratch, "model_code.py")
            code.write_text(CODE.format(work=work))
            mlflow.pyfunc.save_model(
                folder / name,
                python_model=code,
                signature=ModelSignature(matrix, matrix),
                input_example=None if name == "ten_ms" else example,
                pip_requirements=["mlflow", "numpy"],
            )
    rows, kinds = load_iris(return_X_y=True)
    mlflow.sklearn.save_model(
        LogisticRegression(max_iter=500).fit(rows.astype(np.float32), kinds),
        folder / "iris",
        signature=ModelSignature(
            Schema([TensorSpec(np.dtype(np.float32), (-1, 4))]), Schema([TensorSpec(np.dtype(np.int64), (-1,))])
        ),
        input_example=example,
        pip_requirements=["mlflow", "scikit-learn", "numpy"],
        serialization_format="cloudpickle",
    )


if __name__ == "__main__":
    make(Path(sys.argv[1]))
