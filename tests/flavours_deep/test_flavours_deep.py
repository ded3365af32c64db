"""PyTorch, Transformers, Keras and ONNX by every door, compared with `load_model(...).predict` in their environment.

`make test-flavours` makes that environment, of 2 GB, in .venvs/flavours_deep; the gateway has its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from support.flavours import DEEP
from support.flavours.asking import JSON_DOORS, ROOT, V2_DOORS, asked_of, check_json, check_v2, log_models
from support.gateway_process import Gateway

PYTHON = ROOT / ".venvs/flavours_deep/bin/python"
#: Of the models' processes: nothing is fetched, and Keras has no other library here.
VARIABLES = {"KERAS_BACKEND": "torch", "HF_HUB_OFFLINE": "1"}

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models of the table, and beside each what it is asked and answers there."""
    folder = tmp_path_factory.mktemp("flavours_deep")
    log_models(PYTHON, folder, DEEP, **VARIABLES)
    return folder


@pytest.fixture(scope="module")
def served(logged: Path, module_gateway: Callable[..., Gateway]) -> Gateway:
    defaults = {"environment": str(PYTHON), "env": list(VARIABLES)}
    models = [{"name": name, "uri": str(logged / name), **defaults} for name in DEEP]
    running = module_gateway({"server": {"grpc_port": 0}, "models": models}, env={**os.environ, **VARIABLES})
    running.wait_ready(timeout=500)
    return running


@pytest.mark.parametrize("door", V2_DOORS)
@pytest.mark.parametrize("name", DEEP)
def test_v2(served: Gateway, logged: Path, name: str, door: str) -> None:
    check_v2(served, asked_of(logged, name), name, door)


@pytest.mark.parametrize("door", JSON_DOORS)
@pytest.mark.parametrize("name", DEEP)
def test_json(served: Gateway, logged: Path, name: str, door: str) -> None:
    check_json(served, asked_of(logged, name), name, door)
