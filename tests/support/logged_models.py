"""Logs the models that the fetcher's tests ask for into an MLflow server: `python logged_models.py TRACKING_URI`.

Prints the ids as JSON. A process of its own, because importing mlflow and its warnings are no business of the tests'.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import mlflow
import mlflow.pyfunc

WEIGHTS = 3_000_000  # bytes in each model, so that there is progress to report

MODEL_CODE = """
import mlflow


class Echo(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input


mlflow.models.set_model(Echo())
"""


def main(tracking_uri: str) -> None:
    mlflow.set_tracking_uri(tracking_uri)
    client = mlflow.MlflowClient()
    logged = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "echo.py").write_text(MODEL_CODE)
        for number in (1, 2):
            (folder / "weights.bin").write_bytes(bytes([number]) * WEIGHTS)
            with mlflow.start_run() as run:
                info = mlflow.pyfunc.log_model(
                    name="model",
                    python_model=str(folder / "echo.py"),
                    artifacts={"weights": str(folder / "weights.bin")},
                    pip_requirements=["mlflow"],
                    registered_model_name="echo",
                )
                mlflow.log_artifact(str(folder / "weights.bin"), "no_model")
            logged[f"run_{number}"] = run.info.run_id
            logged[f"model_{number}"] = info.model_id
        client.set_registered_model_alias("echo", "champion", "1")
        client.create_registered_model("no_versions")

        # as MLflow 2 logged models: into the run's own artifacts
        mlflow.pyfunc.save_model(folder / "saved", python_model=str(folder / "echo.py"), pip_requirements=["mlflow"])
        with mlflow.start_run() as run:
            mlflow.log_artifacts(str(folder / "saved"), "nested/model")
        logged["old_run"] = run.info.run_id
        logged["old_artifacts"] = f"{run.info.artifact_uri}/nested/model"
    print(json.dumps(logged))


if __name__ == "__main__":
    main(sys.argv[1])
