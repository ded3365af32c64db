"""Every flavour's models by every door, compared with `mlflow.pyfunc.load_model(...).predict` in their own environment.

`make test-flavours` makes that environment in .venvs/flavours; the gateway has its own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.flavours import CASES
from support.flavours.asking import JSON_DOORS, ROOT, V2_DOORS, asked_of, check_json, check_v2, log_models
from support.gateway_process import Gateway

PYTHON = ROOT / ".venvs/flavours/bin/python"

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models of the table, and beside each what it is asked and answers there."""
    folder = tmp_path_factory.mktemp("flavours")
    log_models(PYTHON, folder, CASES)
    return folder


@pytest.fixture(scope="module")
def served(logged: Path, module_gateway: Callable[..., Gateway]) -> Gateway:
    models = [{"name": name, "uri": str(logged / name), "environment": str(PYTHON)} for name in CASES]
    running = module_gateway({"server": {"grpc_port": 0}, "models": models})
    running.wait_ready(timeout=300)
    return running


@pytest.mark.parametrize("door", V2_DOORS)
@pytest.mark.parametrize("name", CASES)
def test_v2(served: Gateway, logged: Path, name: str, door: str) -> None:
    check_v2(served, asked_of(logged, name), name, door)


@pytest.mark.parametrize("door", JSON_DOORS)
@pytest.mark.parametrize("name", CASES)
def test_json(served: Gateway, logged: Path, name: str, door: str) -> None:
    check_json(served, asked_of(logged, name), name, door)
