"""Small models whose imports are large, saved for `bench/loads.py`: `python bench/loadable.py FOLDER`.

Those whose libraries are not installed are left out. Each folder is named by its kind, and has beside it, as KIND.json,
the path and the body of a request.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

ROWS = {"inputs": [{"name": "input-0", "shape": [1, 4], "datatype": "FP64", "data": [1.0, 2.0, 3.0, 4.0]}]}
AGENT = """
import mlflow
from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse


class Agent(mlflow.pyfunc.ResponsesAgent):
    def predict(self, request: ResponsesAgentRequest) -> ResponsesAgentResponse:
        return ResponsesAgentResponse(output=[self.create_text_output_item("hello", "msg_1")])


mlflow.models.set_model(Agent())
"""
IDENTITY = """
import mlflow


class Same(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input


mlflow.models.set_model(Same())
"""


def _data() -> tuple[Any, Any]:
    from sklearn.datasets import load_iris

    rows, kinds = load_iris(return_X_y=True)
    return rows, kinds


def _common(dtype: str = "float64") -> dict[str, Any]:
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    signature = ModelSignature(Schema([TensorSpec(np.dtype(dtype), (-1, 4))]))
    return {"signature": signature, "pip_requirements": ["mlflow"], "input_example": np.ones((2, 4), dtype)}


def pyfunc(folder: Path) -> None:
    import mlflow

    code = folder.with_suffix(".py")
    code.write_text(IDENTITY)
    mlflow.pyfunc.save_model(folder, python_model=code, **_common())


def sklearn(folder: Path) -> None:
    import mlflow.sklearn
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=500).fit(*_data())
    mlflow.sklearn.save_model(model, folder, serialization_format="cloudpickle", **_common())


def lightgbm(folder: Path) -> None:
    import mlflow.sklearn
    import skops  # noqa: F401 - MLflow's default format, with the estimators that it trusts
    from lightgbm import LGBMClassifier

    model = LGBMClassifier(n_estimators=5, verbose=-1).fit(*_data())
    trusted = ["collections.OrderedDict", "lightgbm.basic.Booster", "lightgbm.sklearn.LGBMClassifier"]
    try:
        mlflow.sklearn.save_model(model, folder, skops_trusted_types=trusted, **_common())
    except TypeError:  # an MLflow without skops
        mlflow.sklearn.save_model(model, folder, **_common())


def statsmodels(folder: Path) -> None:
    import mlflow.statsmodels
    import numpy as np
    import statsmodels.api as sm

    rows, kinds = _data()
    model = sm.OLS(kinds.astype(float), rows).fit()
    common = {**_common(), "input_example": np.ones((2, 4))}
    mlflow.statsmodels.save_model(model, folder, **common)


def _linear() -> Any:
    import torch

    return torch.nn.Linear(4, 2)


def torch_pickled(folder: Path) -> None:
    import mlflow.pytorch

    mlflow.pytorch.save_model(_linear(), folder, serialization_format="pickle", **_common("float32"))


def torch_pt2(folder: Path) -> None:
    import mlflow.pytorch

    mlflow.pytorch.save_model(_linear(), folder, serialization_format="pt2", **_common("float32"))


def transformers(folder: Path) -> None:
    import mlflow.transformers
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer, pipeline

    words = folder.with_suffix(".txt")
    words.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad"]))
    config = BertConfig(
        vocab_size=7, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, num_labels=2
    )
    model = BertForSequenceClassification(config)
    made = pipeline("text-classification", model=model, tokenizer=BertTokenizer(str(words)))
    mlflow.transformers.save_model(made, folder, pip_requirements=["mlflow"], input_example=["good"])


def agent(folder: Path) -> None:
    import mlflow

    code = folder.with_suffix(".py")
    code.write_text(AGENT)
    mlflow.pyfunc.save_model(folder, python_model=code, pip_requirements=["mlflow"])


_FLOATS = {"inputs": [{**ROWS["inputs"][0], "datatype": "FP32"}]}
KINDS: dict[str, tuple[Callable[[Path], None], str, Any]] = {
    "pyfunc": (pyfunc, "v2/models/{name}/infer", ROWS),
    "sklearn": (sklearn, "v2/models/{name}/infer", ROWS),
    "lightgbm": (lightgbm, "v2/models/{name}/infer", ROWS),
    "statsmodels": (statsmodels, "v2/models/{name}/infer", ROWS),
    "torch-pickled": (torch_pickled, "v2/models/{name}/infer", _FLOATS),
    "torch-pt2": (torch_pt2, "v2/models/{name}/infer", _FLOATS),
    "transformers": (transformers, "models/{name}/invocations", {"inputs": ["good"]}),
    "agent": (agent, "models/{name}/invocations", {"input": [{"role": "user", "content": "hi"}]}),
}


def make(folder: Path) -> None:
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    for name, (save, path, body) in KINDS.items():
        if (folder / f"{name}.json").exists():
            continue
        try:
            save(folder / name)
        except Exception as error:
            print(f"{name} is left out: {type(error).__name__}: {str(error).splitlines()[0][:200]}", flush=True)
            continue
        (folder / f"{name}.json").write_text(json.dumps({"path": path, "body": body}))


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    make(Path(sys.argv[1]))
