"""Serves whichever MLflow model the environment names; the entry point of the generic container.

    MODEL_URI=runs:/<run id>/model            or MODEL_NAME_REGISTRY=<name> and MODEL_VERSION=<version>
    MODEL_NAME=<name in the routes>           optional, default-model
    PORT=8080  LOG_LEVEL=INFO                 optional
    MODELHUB_BASE_URL, CLIENT_ID, CLIENT_SECRET, COPILOT_ID    where ModelHub keeps the model;
    MLFLOW_TRACKING_URI                                        where a plain MLflow server does

The model runs in a worker of its own, in the Python environment that it was logged with.
"""

from __future__ import annotations

import sys

from modelhub.serving.server import main

if __name__ == "__main__":
    sys.exit(main())
