"""Logs versions of the registered model `rolling`: `python rolling_models.py TRACKING_URI`.

Versions 1 to 3 answer with their own number; version 4 cannot be loaded; version 5 fails on its own input example.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import mlflow
import mlflow.pyfunc
import numpy as np
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

CODE = """
import os

import mlflow
import numpy as np


class Numbered(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        if {number} == 4 and "MODELHUB_WORKER" in os.environ:
            raise RuntimeError("version 4 refuses to load")

    def predict(self, context, model_input, params=None):
        if {number} == 5 and "MODELHUB_WORKER" in os.environ:
            raise RuntimeError("version 5 fails on everything")
        return np.full((len(model_input),), {number}, dtype=np.float32)


mlflow.models.set_model(Numbered())
"""


def main(tracking_uri: str) -> None:
    mlflow.set_tracking_uri(tracking_uri)
    signature = ModelSignature(Schema([TensorSpec(np.dtype(np.float32), (-1, 1))]))
    with tempfile.TemporaryDirectory() as name:
        for number in range(1, 6):
            code = Path(name) / f"numbered_{number}.py"
            code.write_text(CODE.format(number=number))
            mlflow.pyfunc.log_model(
                name="model",
                python_model=str(code),
                signature=signature,
                input_example=np.zeros((1, 1), dtype=np.float32),
                pip_requirements=["mlflow"],
                registered_model_name="rolling",
            )


if __name__ == "__main__":
    main(sys.argv[1])
