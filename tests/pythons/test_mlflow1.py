"""A model that is served with MLflow 1: `/invocations` in all forms that clients know, V2, and what it cannot do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from support.env_parts import make_model
from support.env_real import ask, build, use
from support.gateway_process import Gateway

PINS = "mlflow==1.30.1\nscikit-learn==1.2.2\nnumpy==1.23.5\npandas==1.5.3\n"
ROWS = [{"x": 0.0}, {"x": 3.0}]
SPLIT = {"columns": ["x"], "data": [[0.0], [3.0]]}


@pytest.fixture(scope="module")
def served(module_gateway: Callable[..., Gateway], tmp_path_factory: pytest.TempPathFactory) -> Gateway:
    folder = tmp_path_factory.mktemp("mlflow1")
    environment, _ = build(folder / "state", make_model(folder / "empty", PINS, python="3.8"))
    assert use(environment, folder, PINS)["mlflow"] == "1.30.1"
    model = {"name": "old", "uri": str(folder / "saved")}
    running = module_gateway({"server": {"state_dir": str(folder / "state")}, "models": [model]})
    running.wait_ready(timeout=200)
    return running


@pytest.mark.timeout(600)  # 200 MB of downloads, the first time
def test_it_answers_v2(served: Gateway) -> None:
    assert ask(served, "old") == [0, 0, 1, 1]


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": SPLIT},
        {"dataframe_records": ROWS},
        {"instances": ROWS},
        {"instances": [[0.0], [3.0]]},
        {"inputs": {"x": [0.0, 3.0]}},
        {"inputs": [0.0, 3.0]},
    ],
    ids=str,
)
def test_mlflow_2s_formats(served: Gateway, body: Any) -> None:
    answer = served.post("/invocations", body)
    assert (answer.status, answer.json()) == (200, {"predictions": [0, 1]})


@pytest.mark.parametrize("body", [SPLIT, {**SPLIT, "index": [0, 1]}, ROWS], ids=str)
def test_bodies_of_its_own(served: Gateway, body: Any) -> None:
    """Answered as its own server does, without a wrapper."""
    for media in ("application/json", "application/json; format=pandas-split"):
        answer = served.post("/invocations", body, {"Content-Type": media})
        assert (answer.status, answer.json()) == (200, [0, 1])


def test_csv(served: Gateway) -> None:
    answer = served.post("/invocations", b"x\n0.0\n3.0\n", {"Content-Type": "text/csv"})
    assert (answer.status, answer.json()) == (200, {"predictions": [0, 1]})


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_records": [{"y": 1.0}]},
        {"dataframe_records": [{"x": "Jane Roe"}]},
        {"dataframe_split": "Jane Roe"},
        {"instances": [[1.0, 2.0]]},
        {"inputs": "Jane Roe"},
        "Jane Roe",
        [],
        5,
        None,
    ],
    ids=str,
)
def test_what_is_wrong_with_a_body_is_the_clients_mistake(served: Gateway, body: Any) -> None:
    answer = served.post("/invocations", body)
    assert answer.status == 400, answer.body
    assert b"Jane" not in answer.body


def test_parameters_are_not_supported_and_that_is_said(served: Gateway) -> None:
    answer = served.post("/invocations", {"dataframe_records": ROWS, "params": {"k": 1}})
    assert answer.status == 501
    assert "MLflow 1.30.1" in answer.json()["message"]
