"""Statistics and model configuration as Triton's clients read them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub.serving.gateway.telemetry.batch_stats import EXACT, BatchStats
from modelhub.serving.protocol.messages import InferReply, InferRequest
from support.http_front import Model, serving

TENSOR = {"name": "x", "datatype": "FP32", "shape": [-1, 4]}
TEXT = {"name": "text", "datatype": "BYTES", "shape": [-1]}


async def answering(request: InferRequest, body: Any) -> tuple[InferReply, Any]:
    if body == b"wrong":
        raise ValueError("not for clients")
    return InferReply(id=0, decode_ns=1, wait_ns=5, predict_ns=20, encode_ns=300, rows=4, batch=2), body


@pytest.mark.parametrize("path", ["/v2/models/iris/stats", "/v2/models/iris/versions/1/stats", "/v2/models/stats"])
async def test_what_was_counted(path: str) -> None:
    async with serving(Model(answering=answering)) as front:
        for body in (b"{}", b"{}", b"wrong"):
            await front.post("/v2/models/iris/infer", body)
        [row] = (await front.get(path)).json()["model_stats"]
    stats = row.pop("inference_stats")
    assert row.pop("last_inference") > 1_700_000_000_000
    assert row == {
        "name": "iris",
        "version": "1",
        "inference_count": 8,
        "execution_count": 1,
        "batch_stats": [
            {
                "batch_size": 8,
                "compute_input": {"count": 1, "ns": 2},
                "compute_infer": {"count": 1, "ns": 20},
                "compute_output": {"count": 1, "ns": 600},
            }
        ],
        "memory_usage": [],
    }
    assert {name: duration["count"] for name, duration in stats.items()} == {
        **dict.fromkeys(("success", "queue", "compute_input", "compute_infer", "compute_output"), 2),
        "fail": 1,
        "cache_hit": 0,
        "cache_miss": 0,
    }
    assert [stats[name]["ns"] for name in ("compute_input", "compute_infer", "compute_output")] == [2, 40, 600]
    assert stats["queue"]["ns"] >= 10
    assert stats["success"]["ns"] > 0
    assert stats["fail"]["ns"] > 0


SIZES = st.integers(1, 1 << 20)


@given(st.lists(st.tuples(SIZES, st.integers(1, 128)), max_size=40))
def test_sizes_of_batches_are_bounded_and_add_up(batches: list[tuple[int, int]]) -> None:
    """Batches of so many requests, each with so many rows."""
    stats = BatchStats()
    for rows, requests in batches:
        for _ in range(requests):
            stats.add(InferReply(id=0, rows=rows, batch=requests, decode_ns=3, predict_ns=1000, encode_ns=5))
    found = stats.as_json()
    sizes = [row["batch_size"] for row in found]
    assert sizes == sorted(set(sizes))
    assert all(size <= EXACT or size & (size - 1) == 0 for size in sizes)
    infer = [row["compute_infer"] for row in found]
    assert sum(each["count"] for each in infer) == len(batches)
    assert sum(each["ns"] for each in infer) == pytest.approx(1000 * len(batches))
    assert sum(row["compute_input"]["ns"] for row in found) == 3 * sum(requests for _, requests in batches)
    assert [row["compute_output"]["count"] for row in found] == [each["count"] for each in infer]
    if all(rows * requests <= EXACT for rows, requests in batches):
        total = sum(row["batch_size"] * row["compute_infer"]["count"] for row in found)
        assert total == sum(rows * requests for rows, requests in batches)


async def test_a_model_that_nobody_has_asked() -> None:
    async with serving(Model("a"), Model("b"), Model("b", "2")) as front:
        rows = (await front.get("/v2/models/stats")).json()["model_stats"]
        assert [(row["name"], row["version"]) for row in rows] == [("a", "1"), ("b", "1"), ("b", "2")]
        assert {row["inference_stats"]["success"]["ns"] for row in rows} == {0}
        rows = (await front.get("/v2/models/b/stats")).json()["model_stats"]
        assert [row["version"] for row in rows] == ["1", "2"]
        for path in ("/v2/models/c/stats", "/v2/models/b/versions/3/stats", "/v2/models/c/config"):
            (await front.get(path)).assert_error(404)


@pytest.mark.parametrize("path", ["/v2/models/iris/config", "/v2/models/iris/versions/1/config"])
@pytest.mark.parametrize("streams", [False, True])
async def test_configuration(path: str, streams: bool) -> None:
    model = Model()
    model.streams = streams
    model.known_metadata = {"platform": "mlflow_sklearn", "inputs": [TENSOR, TEXT], "outputs": [TENSOR]}
    async with serving(model) as front:
        answer = await front.get(path)
    assert answer.headers["content-type"] == "application/json"
    config = json.loads(answer.body)
    tensor = {"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 4]}
    assert config["input"] == [tensor, {"name": "text", "data_type": "TYPE_STRING", "dims": [-1]}]
    assert config["output"] == [tensor]
    assert (config["name"], config["platform"], config["max_batch_size"]) == ("iris", "mlflow_sklearn", 0)
    assert config["model_transaction_policy"] == {"decoupled": streams}
