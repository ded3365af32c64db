"""Models whose signature comes from type hints get what MLflow's own server gives them, by every JSON door."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest

from support.code_models import save_code_model
from support.gateway_process import Gateway
from support.quiet_mlflow import import_mlflow

DAY = "2024-01-31T12:00:00"
RAW = base64.b64encode(b"raw").decode()
DATE = "datetime.datetime(2024, 1, 31, 12, 0)"
#: Of each hint: what is sent, and what the model gets.
HINTS: dict[str, tuple[list[Any], list[str]]] = {
    "list[datetime.datetime]": ([DAY], [DATE]),
    "list[bytes]": ([RAW], ["b'raw'"]),
    "list[list[bytes]]": ([[RAW, RAW]], ["[b'raw', b'raw']"]),
    "list[dict[str, datetime.datetime]]": ([{"born": DAY}], [f"{{'born': {DATE}}}"]),
    "list[dict[str, list[bytes]]]": ([{"files": [RAW]}], ["{'files': [b'raw']}"]),
    "list[Any]": (["a", 1, {"x": None}], ["'a'", "1", "{'x': None}"]),
}
SOURCE = """
import datetime
from typing import Any
import mlflow

class Own(mlflow.pyfunc.PythonModel):
    def predict(self, model_input: {hint}) -> list[str]:
        return [repr(each) for each in model_input]
"""


def name_of(hint: str) -> str:
    return f"hint-{list(HINTS).index(hint)}"


@pytest.fixture(scope="module")
def hinted(module_gateway: Callable[..., Gateway], tmp_path_factory: pytest.TempPathFactory) -> Gateway:
    import_mlflow()
    folder = tmp_path_factory.mktemp("hints")
    for hint in HINTS:
        save_code_model(folder / name_of(hint), SOURCE.format(hint=hint))
    running = module_gateway(
        {"models": [{"name": name_of(hint), "uri": str(folder / name_of(hint))} for hint in HINTS]}
    )
    running.wait_ready()
    return running


DOORS = {
    "invocations": ("/models/{}/invocations", "inputs", "predictions"),
    "records": ("/v2/models/{}/infer", "data", "data"),
    "V1": ("/v1/models/{}:predict", "instances", "predictions"),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("hint", HINTS)
def test_json_values_become_what_the_hint_says(hinted: Gateway, hint: str, door: str) -> None:
    path, asked, answered = DOORS[door]
    sent, expected = HINTS[hint]
    answer = hinted.post(path.format(name_of(hint)), {asked: sent})
    assert answer.status == 200, answer.body
    assert answer.json()[answered] == expected


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("hint", [hint for hint in HINTS if hint != "list[Any]"])
def test_what_the_hint_does_not_take_is_the_clients_mistake(hinted: Gateway, hint: str, door: str) -> None:
    """400, without the value."""

    def spoilt(value: Any) -> Any:
        if isinstance(value, list):
            return [spoilt(each) for each in value]
        if isinstance(value, dict):
            return {key: spoilt(each) for key, each in value.items()}
        return "Jane Roe!"

    path, asked, _ = DOORS[door]
    answer = hinted.post(path.format(name_of(hint)), {asked: spoilt(HINTS[hint][0])})
    assert answer.status == 400, answer.body
    assert b"type hint" in answer.body
    assert b"Jane" not in answer.body
    assert "Jane" not in hinted.log()
