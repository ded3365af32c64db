"""Whatever modules a model or its environment brings, ours and theirs never meet: end to end, through the gateway."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.clashing_models import make_environment_with_old_sdk, save_model_with_clashing_code
from support.gateway_process import Gateway
from support.v2_client import tensor

_SERVICE = """
import modelhub
import modelhub.clients
from modelhub.serving import ModelhubModelService, ModelServer
from utils import OWN

class Own(ModelhubModelService):
    def load(self):
        return True

    def predict(self, request, headers=None):
        return {"statusCode": 200, "data": [modelhub.WHAT, modelhub.clients.CLIENT, ModelServer.__name__, OWN]}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clashing")


@pytest.fixture(scope="module")
def old_sdk(folder: Path) -> Path:
    return make_environment_with_old_sdk(folder / "environment")


@pytest.fixture(scope="module")
def as_made(old_sdk: Path) -> set[Path]:
    return files_of(old_sdk)


def files_of(folder: Path) -> set[Path]:
    """All but bytecode, which Python itself keeps where it may."""
    return {path for path in folder.rglob("*") if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def running(folder: Path, old_sdk: Path, as_made: set[Path], module_gateway: Callable[..., Gateway]) -> Gateway:
    one, two = (
        str(save_model_with_clashing_code(folder / f"code-{own}", folder / f"model-{own}", own)) for own in (1, 2)
    )
    services = folder / "services"
    services.mkdir()
    (services / "own_service.py").write_text(_SERVICE)
    (services / "utils.py").write_text("OWN = 'its own utils'\n")
    elsewhere = {"environment": str(old_sdk)}
    models = [
        {"name": "one", "uri": one, "environment": "shared"},
        {"name": "two", "uri": two, "environment": "shared"},
        {"name": "two-spawned", "uri": two, "environment": "shared", "start": "spawn"},
        {"name": "one-beside-sdk", "uri": one, **elsewhere},
        {"name": "service", "service": "own_service:Own", "pythonpath": [str(services)], **elsewhere},
        {
            "name": "service-spawned",
            "service": "own_service:Own",
            "pythonpath": [str(services)],
            "start": "spawn",
            **elsewhere,
        },
    ]
    subprocess.run(["chmod", "-R", "a-w", str(old_sdk)], check=True)  # it may be read-only
    gateway = module_gateway({"models": models})
    gateway.wait_ready(timeout=100)
    return gateway


@pytest.mark.timeout(200)  # the first time the kit is installed
@pytest.mark.parametrize(("model", "sum_of_six"), [("one", 6), ("two", 12), ("two-spawned", 12), ("one-beside-sdk", 6)])
def test_a_models_modules_named_like_ours_are_its_own(running: Gateway, model: str, sum_of_six: float) -> None:
    answer = running.infer(model, [tensor("input-0", "FP32", [1, 2], [0, 0])])
    assert answer.status == 200, answer.body
    assert answer.json()["outputs"][0]["data"] == [sum_of_six] * 2


@pytest.mark.timeout(200)
@pytest.mark.parametrize("model", ["service", "service-spawned"])
def test_a_service_beside_another_modelhub_gets_ours_and_that_one(running: Gateway, model: str) -> None:
    answer = running.post(f"/v2/models/{model}/infer", {"text": "anything"})
    assert answer.status == 200, answer.body
    assert answer.json()["data"] == ["the old SDK", "of the old SDK", "ModelServer", "its own utils"]


@pytest.mark.timeout(200)
def test_nothing_is_written_into_an_environment_that_is_given(
    running: Gateway, old_sdk: Path, as_made: set[Path]
) -> None:
    assert files_of(old_sdk) == as_made
    environments = {each["name"]: each["environment"] for each in running.get("/status").json()["models"]}
    assert environments["one"] == "shared"
    assert environments["service"] != "shared"
