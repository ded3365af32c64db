"""Batches through the whole gateway: fewer calls of the model, and deaths that cost nobody else an answer."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from support.gateway_process import Answer, Gateway
from support.v2_client import tensor

Start = Callable[..., Gateway]


def one(value: float) -> list[dict[str, Any]]:
    return [tensor("input-0", "FP32", [1, 1], [value])]


@pytest.fixture(scope="module")
def batched(models: Path, module_gateway: Start) -> Gateway:
    killed = models / "killed_in_predict"
    entries = [
        {"name": "slow", "uri": str(models / "slow_predict"), "batching": {"enabled": True}},
        {"name": "unproven", "uri": str(models / "slow_predict")},
        {
            "name": "poisoned",
            "uri": str(killed),
            "batching": {"enabled": True, "max_delay": "50ms"},
        },
    ]
    running = module_gateway({"defaults": {"environment": "shared"}, "models": entries})
    running.wait_ready()
    return running


def together(gateway: Gateway, model: str, values: list[float]) -> list[Answer]:
    with ThreadPoolExecutor(len(values)) as pool:
        return list(pool.map(lambda value: gateway.infer(model, one(value)), values))


def counted(gateway: Gateway, model: str) -> tuple[float, float]:
    """Rows and calls of the model's predict so far."""
    found = {}
    for line in gateway.get("/metrics").body.decode().splitlines():
        name, _, rest = line.partition("{")
        if f'model="{model}"' in rest and name in ("modelhub_rows_total", "modelhub_batches_total"):
            found[name] = float(line.rsplit(" ", 1)[1])
    return found["modelhub_rows_total"], found["modelhub_batches_total"]


def test_what_waits_is_predicted_together(batched: Gateway) -> None:
    values = [100.0 + number for number in range(16)]
    answers = together(batched, "slow", values)
    assert [answer.json()["outputs"][0]["data"] for answer in answers] == [[value] for value in values]
    rows, calls = counted(batched, "slow")
    assert rows == 16
    assert calls <= 8


def test_what_is_not_shown_to_be_safe_is_not_batched(batched: Gateway) -> None:
    assert {answer.status for answer in together(batched, "unproven", [10.0] * 8)} == {200}
    assert counted(batched, "unproven") == (8, 8)


def test_a_request_that_kills_its_batch_dies_alone(batched: Gateway) -> None:
    values = [1.0, 2.0, 666.0, 3.0, 4.0]
    answers = together(batched, "poisoned", values)
    assert [answer.status for answer in answers] == [200, 200, 503, 200, 200]
    assert "signal" in answers[2].json()["error"].lower()
