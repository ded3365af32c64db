"""mlflow in the tests' own process: it warns of many things, and warnings are errors there."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Recording warnings holds even where mlflow changes the filters."""
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("ignore")
        yield


def import_mlflow() -> None:
    """The import takes seconds and warns."""
    with quiet():
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        import mlflow.pyfunc
        import mlflow.sklearn  # noqa: F401
