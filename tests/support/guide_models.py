"""Logs the models that the guide's examples are pointed at: `python guide_models.py TRACKING_URI FOLDER`.

Prints their run ids as JSON. FOLDER gets the code of `async_llm.py`, which the test has written there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mlflow
import mlflow.pyfunc
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema

PINS = [f"mlflow=={mlflow.__version__}", f"pandas=={pd.__version__}"]

#: Says what it was given.
ANYTHING = """
import mlflow


def described(value):
    if isinstance(value, bytes):
        return "bytes " + value[:4].decode("latin-1").strip()
    if hasattr(value, "columns"):
        return {name: [described(each) for each in value[name]] for name in value.columns}
    return value.tolist() if hasattr(value, "tolist") else value


class Anything(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return [{"type": type(model_input).__name__, "value": described(model_input)}]


mlflow.models.set_model(Anything())
"""

#: 0 for what looks like spam, else 1.
SPAM = """
import mlflow


class Spam(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        text = model_input["text"].iloc[0]
        return 0 if "money" in text.lower() else 1


mlflow.models.set_model(Spam())
"""

#: Width and height of each image.
SIZES = """
import io

import mlflow


class Sizes(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        from PIL import Image

        return [list(Image.open(io.BytesIO(each)).size) for each in model_input["image"]]


mlflow.models.set_model(Sizes())
"""


def main(tracking_uri: str, folder: Path) -> None:
    mlflow.set_tracking_uri(tracking_uri)
    text = Schema([ColSpec(DataType.string, "text")])
    prompt = Schema([ColSpec(DataType.string, "prompt")])
    runs = {
        "anything": log(folder, "anything", ANYTHING),
        "spam": log(folder, "spam", SPAM, ModelSignature(inputs=text)),
        "sizes": log(folder, "sizes", SIZES),
    }
    code = (folder / "async_llm.py").read_text() + "\n\nmlflow.models.set_model(AsyncLLMModel())\n"
    runs["async_llm"] = log(
        folder, "async_llm", code, ModelSignature(inputs=prompt), code_paths=[str(folder / "fake_llm.py")]
    )
    for _ in range(2):
        mlflow.register_model(runs["anything"], "my-model")
    print(json.dumps(runs))


def log(
    folder: Path,
    name: str,
    code: str,
    signature: ModelSignature | None = None,
    code_paths: list[str] | None = None,
) -> str:
    (folder / f"{name}_model.py").write_text(code)
    sys.path.insert(0, str(folder))
    with mlflow.start_run() as run:
        mlflow.pyfunc.log_model(
            name="model",
            python_model=str(folder / f"{name}_model.py"),
            signature=signature,
            pip_requirements=PINS,
            code_paths=code_paths,
        )
    return f"runs:/{run.info.run_id}/model"


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
