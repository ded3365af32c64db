"""Statistics and model configuration as Triton's clients read them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from http_front import Model, serving

from modelhub.serving.protocol.messages import InferReply, InferRequest

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
        "batch_stats": [],
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
async def test_configuration(path: str) -> None:
    model = Model()
    model.described = {"platform": "mlflow_sklearn", "inputs": [TENSOR, TEXT], "outputs": [TENSOR]}
    async with serving(model) as front:
        answer = await front.get(path)
    assert answer.headers["content-type"] == "application/json"
    config = json.loads(answer.body)
    tensor = {"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 4]}
    assert config["input"] == [tensor, {"name": "text", "data_type": "TYPE_STRING", "dims": [-1]}]
    assert config["output"] == [tensor]
    assert (config["name"], config["platform"], config["max_batch_size"]) == ("iris", "mlflow_sklearn", 0)
