"""Trains the demo's models; saves them as folders, or logs them to an MLflow tracking server.

    python examples/demo_models.py --folder .demo/models               folders, for examples/models.yaml
    python examples/demo_models.py --tracking-uri URI --note FILE      for examples/demo.py

The note is a JSON file: each model's URI, and a few rows of its test data for the demo's calls.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import joblib
import mlflow
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from sklearn.datasets import load_digits, load_wine
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

HERE = Path(__file__).parent
SENTENCES = {
    "positive": [
        "What a wonderful evening, thank you",
        "The delivery came early and everything works",
        "I love this phone, the screen is beautiful",
        "Great service and friendly people",
        "The film was moving and very well acted",
        "Best coffee in town, I will come back",
        "The instructions were clear and helpful",
        "A delightful book, I could not stop reading",
        "My order was perfect and the price was fair",
        "The room was clean, quiet and bright",
        "Really happy with the result",
        "An excellent course, I learned a lot",
    ],
    "negative": [
        "What a terrible evening, never again",
        "The delivery came late and nothing works",
        "I hate this phone, the screen is broken",
        "Awful service and rude people",
        "The film was boring and badly acted",
        "Worst coffee in town, I will not come back",
        "The instructions were confusing and useless",
        "A tedious book, I stopped reading",
        "My order was wrong and the price was a joke",
        "The room was dirty, loud and dark",
        "Really disappointed with the result",
        "A poor course, I learned nothing",
    ],
}

#: Writes one model; called with `save_model`'s or `log_model`'s own place for it.
Writer = Callable[..., Any]


def pinned(*names: str) -> list[str]:
    """The versions that are installed here: the model's environment, without MLflow's slow guess."""
    return [f"{name}=={version(name)}" for name in ("mlflow", *names)]


def train_wine(samples: dict[str, Any]) -> tuple[Writer, dict[str, Any]]:
    """Three cultivars of wine from 13 chemical measurements (UCI): named columns in."""
    data = load_wine(as_frame=True)
    frame = data.data.rename(columns=lambda name: name.replace("/", "_per_"))
    known, unseen, classes, truth = train_test_split(frame, data.target, random_state=0, stratify=data.target)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(known, classes)
    samples["wine"] = {
        "rows": unseen.head(3).to_dict("list"),
        "truth": truth.head(3).tolist(),
        "accuracy": model.score(unseen, truth),
    }
    return mlflow.sklearn, {
        "sk_model": model,
        "signature": infer_signature(known, model.predict(known)),
        "input_example": known.head(2),
        "pip_requirements": pinned("scikit-learn", "numpy", "pandas", "skops"),
    }


def train_digits(samples: dict[str, Any]) -> tuple[Writer, dict[str, Any]]:
    """Handwritten digits of 8 by 8 pixels (UCI): a tensor in."""
    pixels, digits = load_digits(return_X_y=True)
    known, unseen, classes, truth = train_test_split(pixels.astype(np.float32), digits, random_state=0)
    model = SVC(gamma=0.001).fit(known, classes)
    samples["digits"] = {
        "pixels": unseen[:4].tolist(),
        "truth": truth[:4].tolist(),
        "accuracy": model.score(unseen, truth),
    }
    return mlflow.sklearn, {
        "sk_model": model,
        "signature": ModelSignature(
            inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 64))]),
            outputs=Schema([TensorSpec(np.dtype(np.int64), (-1,))]),
        ),
        "input_example": known[:1],
        "pip_requirements": pinned("scikit-learn", "numpy", "skops"),
    }


def train_sentiment(samples: dict[str, Any], scratch: Path) -> tuple[Writer, dict[str, Any]]:
    """A text pipeline: strings in, a label and probabilities out."""
    texts = [text for label in SENTENCES for text in SENTENCES[label]]
    labels = [label for label in SENTENCES for _ in SENTENCES[label]]
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    joblib.dump(make_pipeline(words, LogisticRegression(C=20)).fit(texts, labels), scratch / "sentiment.joblib")
    samples["sentiment"] = {"texts": ["I love the friendly service", "Nothing works and I am disappointed"]}
    return mlflow.pyfunc, {
        "python_model": HERE / "models/sentiment.py",
        "artifacts": {"pipeline": str(scratch / "sentiment.joblib")},
        "signature": ModelSignature(
            inputs=Schema([ColSpec(DataType.string, "text")]),
            outputs=Schema(
                [ColSpec(DataType.string, "label"), *(ColSpec(DataType.double, name) for name in sorted(SENTENCES))]
            ),
        ),
        "input_example": pd.DataFrame({"text": ["Great coffee, I will come back"]}),
        "pip_requirements": pinned("scikit-learn", "numpy", "pandas", "joblib"),
    }


def write_forecast(samples: dict[str, Any]) -> tuple[Writer, dict[str, Any]]:
    """A Python function with parameters."""
    samples["forecast"] = {"values": [112.0, 118.0, 132.0, 129.0, 141.0, 148.0]}
    return mlflow.pyfunc, {
        "python_model": HERE / "models/forecast.py",
        "signature": ModelSignature(
            inputs=Schema([ColSpec(DataType.double, "value")]),
            outputs=Schema([ColSpec(DataType.long, "step"), ColSpec(DataType.double, "value")]),
            params=ParamSchema(
                [
                    ParamSpec("horizon", DataType.long, 3),
                    ParamSpec("level", DataType.double, 0.5),
                    ParamSpec("trend", DataType.double, 0.3),
                ]
            ),
        ),
        "pip_requirements": pinned("pandas"),
    }


def all_models(samples: dict[str, Any], scratch: Path) -> dict[str, tuple[Writer, dict[str, Any]]]:
    return {
        "wine": train_wine(samples),
        "digits": train_digits(samples),
        "sentiment": train_sentiment(samples, scratch),
        "forecast": write_forecast(samples),
    }


def save(folder: Path, scratch: Path) -> None:
    """Each model as a folder, and `damaged`: the wine model whose file was cut off half way."""
    new = scratch / "models"
    for name, (flavour, arguments) in all_models({}, scratch).items():
        flavour.save_model(path=str(new / name), **arguments)
    shutil.copytree(new / "wine", new / "damaged")
    weights = next((new / "damaged").glob("model.*"))
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(new, folder)
    print(f"saved {', '.join(sorted(path.name for path in folder.iterdir()))} in {folder}")


def log(tracking_uri: str, note: Path, scratch: Path) -> None:
    """Logs each model, registers two of them, and writes down four kinds of URI."""
    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_experiment("demo")
    samples: dict[str, Any] = {}
    uris = {}
    for name, (flavour, arguments) in all_models(samples, scratch).items():
        with mlflow.start_run(run_name=name) as run:
            if "accuracy" in samples[name]:
                mlflow.log_metric("accuracy", samples[name]["accuracy"])
            registered = name if name in ("wine", "digits") else None
            logged = flavour.log_model(name=name, registered_model_name=registered, **arguments)
        uris[name] = {
            "wine": f"models:/{name}@champion",
            "digits": f"models:/{name}/{logged.registered_model_version}",
            "sentiment": f"runs:/{run.info.run_id}/{name}",
            "forecast": f"models:/{logged.model_id}",
        }[name]
        if name == "wine":
            client = mlflow.MlflowClient()
            client.set_registered_model_alias(name, "champion", str(logged.registered_model_version))
    note.write_text(json.dumps({"uris": uris, "samples": samples}, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--tracking-uri")
    parser.add_argument("--note", type=Path)
    given = parser.parse_args()
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.captureWarnings(True)  # mlflow undoes filters of the warnings module
    logging.getLogger("py.warnings").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch:
        if given.folder:
            save(given.folder, Path(scratch))
        elif given.tracking_uri and given.note:
            log(given.tracking_uri, given.note, Path(scratch))
        else:
            parser.error("give --folder, or --tracking-uri and --note")


if __name__ == "__main__":
    main()
