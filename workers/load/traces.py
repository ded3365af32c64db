"""MLflow's traces of what a model does, made only where somebody has said where they go.

A worker has no tracking URI of its own. Without one MLflow makes a database in the process's folder and writes every
request and answer of a traced model into it (`@mlflow.trace`, a ResponsesAgent, autologging): the clients' data,
without end, and slowly. So tracing is off in workers, unless the model's entry passes a tracking URI or a collector
under `env`, or the model's own code names one while it is loaded.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

#: Each of them says where traces go; a worker has those that the model's entry passes.
_TARGETS = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACING_DESTINATION",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
)

_settled = False


def settle_tracing() -> None:
    """Called whenever MLflow may have been imported: before a load, in it, and after it. Only in workers.

    In a user's script or notebook, which may load the same model, tracing is the user's own affair.
    """
    global _settled
    mlflow: Any = sys.modules.get("mlflow")
    if mlflow is None or not os.environ.get("MODELHUB_WORKER"):
        return
    try:
        tracing: Any = importlib.import_module("mlflow.tracing")
    except ImportError:
        return  # before MLflow 2.14
    asked = any(os.environ.get(name) for name in _TARGETS) or mlflow.is_tracking_uri_set()
    if _settled and asked and not tracing.provider.is_tracing_enabled():
        tracing.enable()
    elif not _settled and not asked:
        tracing.disable()
    _settled = True
