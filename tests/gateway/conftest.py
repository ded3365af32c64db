"""What the gateway's tests share: models in a real MLflow server, and a fetcher that is already warm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from modelhub.serving.gateway.artifacts.fetcher import Fetcher

LOGGED_MODELS = Path(__file__).parent.parent / "support" / "logged_models.py"


@pytest.fixture(scope="session")
def logged(mlflow_server: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The ids of what tests/support/logged_models.py logged: the registered model `echo` and its runs."""
    done = subprocess.run(
        [sys.executable, str(LOGGED_MODELS), mlflow_server],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        cwd=tmp_path_factory.mktemp("logged"),
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
    )
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(**json.loads(done.stdout.splitlines()[-1]))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fetcher(mlflow_server: str) -> AsyncIterator[Fetcher]:
    """One fetcher process for a module's tests (importing mlflow takes seconds): for those that do not kill it."""
    lines: list[str] = []
    environment = {**os.environ, "MLFLOW_TRACKING_URI": mlflow_server.replace("://", "://reader:hunter22@")}
    running = Fetcher(lines.append, environment=environment)
    yield running
    await running.close()
    assert not [line for line in lines if "hunter22" in line or "Traceback" in line]
