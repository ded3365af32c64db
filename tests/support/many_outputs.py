"""Estimators of several outputs: their `predict_proba` gives a LIST of arrays, one for each output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd


def _kinds() -> dict[str, Callable[[], Any]]:
    from sklearn.dummy import DummyClassifier
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
    from sklearn.model_selection import GridSearchCV
    from sklearn.multioutput import MultiOutputClassifier
    from sklearn.neighbors import KNeighborsClassifier, RadiusNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier

    def tree(**options: Any) -> Any:
        return DecisionTreeClassifier(max_depth=3, random_state=0, **options)

    return {
        "decision_tree": tree,
        "extra_tree": lambda: ExtraTreeClassifier(max_depth=3, random_state=0),
        "extra_trees": lambda: ExtraTreesClassifier(5, max_depth=3, random_state=0),
        "random_forest": lambda: RandomForestClassifier(5, max_depth=3, random_state=0),
        "k_neighbors": lambda: KNeighborsClassifier(5),
        "radius_neighbors": lambda: RadiusNeighborsClassifier(9.0),
        "dummy": lambda: DummyClassifier(strategy="prior"),
        "multi_output": lambda: MultiOutputClassifier(tree()),
        "pipeline": lambda: make_pipeline(StandardScaler(), tree()),
        "grid_search": lambda: GridSearchCV(tree(), {"min_samples_leaf": [1, 2]}, cv=2, scoring=_first_output),
    }


def _first_output(estimator: Any, rows: Any, wanted: Any) -> float:
    return float((estimator.predict(rows)[:, 0] == np.asarray(wanted)[:, 0]).mean())


#: Their names; `log_proba` is a random forest's other method.
MANY_OUTPUTS = (
    *("decision_tree", "extra_tree", "extra_trees", "random_forest", "k_neighbors", "radius_neighbors", "dummy"),
    *("multi_output", "pipeline", "grid_search", "log_proba"),
)


def rows_of(count: int) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(0).normal(size=(count, 2)), columns=["a", "b"])


def save_many_outputs(kind: str, folder: Any, **options: Any) -> Any:
    """Logs one with two outputs of two and of three classes; the fitted estimator. No input example unless given."""
    import warnings

    import mlflow.sklearn
    from mlflow.models import infer_signature

    rows = rows_of(200)
    wanted = np.stack([(rows["a"] > 0).astype(int), np.digitize(rows["b"], [-0.5, 0.5])], axis=1)
    estimator = _kinds()["random_forest" if kind == "log_proba" else kind]().fit(rows, wanted)
    if kind == "grid_search":
        estimator.scoring = estimator.scorer_ = None  # of this file, which the model's worker does not have
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("ignore")
        mlflow.sklearn.save_model(
            estimator,
            folder,
            pyfunc_predict_fn="predict_log_proba" if kind == "log_proba" else "predict_proba",
            signature=infer_signature(rows),
            serialization_format="cloudpickle",
            pip_requirements=["mlflow", "scikit-learn"],
            **options,
        )
    return estimator
