"""The routes of the real gateway with real workers: what the front and the models say together."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.gateway_process import Gateway

BODY = {"id": "a1", "inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP64", "data": [[1, 2], [3, 4.5]]}]}
TEXT = json.dumps(BODY).encode()


def value(gateway: Gateway, name: str, **labels: str) -> float:
    text = gateway.get("/metrics").body.decode()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return 0.0


def test_an_answer_and_its_headers(shared_gateway: Gateway) -> None:
    answer = shared_gateway.post("/v2/models/identity/infer", BODY, {"X-Request-Id": "mine"})
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"] == "mine"
    assert answer.json()["id"] == "a1"
    assert answer.json()["model_name"] == "identity"


def test_a_compressed_body_is_inflated_behind_the_front(shared_gateway: Gateway) -> None:
    plain = shared_gateway.post("/v2/models/identity/infer", BODY)
    packed = shared_gateway.post(
        "/v2/models/identity/infer", gzip.compress(json.dumps(BODY).encode()), {"Content-Encoding": "gzip"}
    )
    assert (packed.status, packed.json()) == (200, plain.json())


@pytest.mark.parametrize(
    "body",
    [TEXT.replace(b"4.5", b"NaN"), TEXT.replace(b"4.5", b"-Infinity"), b"\xef\xbb\xbf" + TEXT],
    ids=["NaN", "Infinity", "byte order mark"],
)
def test_what_other_programs_write_beside_json_is_read(shared_gateway: Gateway, body: bytes) -> None:
    answer = shared_gateway.post("/v2/models/identity/infer", body, {"Content-Type": "application/json"})
    assert answer.status == 200
    assert answer.json()["outputs"][0]["data"][:3] == [1.0, 2.0, 3.0]


def test_binary_tensors_are_answered_compressed(shared_gateway: Gateway) -> None:
    """What is compressed may be shorter than the JSON in it: `Inference-Header-Content-Length` counts before."""
    tensor = {"name": "x", "shape": [1000, 2], "datatype": "FP32", "data": [1.0] * 2000}
    body = {"id": "a" * 500, "inputs": [tensor], "parameters": {"binary_data_output": True}}
    answer = shared_gateway.post("/v2/models/identity/infer", body, {"Accept-Encoding": "gzip"})
    assert (answer.status, answer.headers["content-encoding"]) == (200, "gzip"), answer
    size = int(answer.headers["inference-header-content-length"])
    whole = gzip.decompress(answer.body)
    assert len(answer.body) < size, "the case is not what this test is for"
    assert json.loads(whole[:size])["outputs"][0]["parameters"] == {"binary_data_size": 8000}
    assert len(whole[size:]) == 8000


def test_what_the_worker_refuses_is_a_v2_error(shared_gateway: Gateway) -> None:
    for body, headers in (
        (b"{", {}),
        (b"{}", {"Inference-Header-Content-Length": "900"}),
        (b"x", {"Content-Encoding": "gzip"}),
    ):
        answer = shared_gateway.post("/v2/models/identity/infer", body, headers)
        assert answer.status == 400, answer
        assert answer.headers["content-type"] == "application/json"
        assert list(answer.json()) == ["error"]


def test_metadata_index_and_status_agree(shared_gateway: Gateway) -> None:
    names = shared_gateway.get("/v2/models").json()["models"]
    rows = shared_gateway.post("/v2/repository/index").json()
    models = shared_gateway.get(shared_gateway.admin_url + "/status").json()["models"]
    assert names == [row["name"] for row in rows] == [model["name"] for model in models]
    assert {row["state"] for row in rows} == {"READY"} == {model["state"] for model in models}
    for row in rows:
        metadata = shared_gateway.get(f"/v2/models/{row['name']}").json()
        assert metadata["versions"] == [row["version"]]
        assert metadata["platform"]
        assert isinstance(metadata["inputs"], list)
        assert isinstance(metadata["outputs"], list)


def test_requests_are_counted_with_the_workers_own_times(shared_gateway: Gateway) -> None:
    labels = {"model": "params", "version": "1"}

    def count(status: str) -> float:
        return value(shared_gateway, "modelhub_requests_total", **labels, route="infer", status=status)

    before = count("200"), count("400"), value(shared_gateway, "modelhub_request_seconds_count", **labels)
    predict = value(shared_gateway, "modelhub_request_phase_seconds_sum", **labels, phase="predict")
    metadata = shared_gateway.get("/v2/models/params").json()
    assert shared_gateway.post("/v2/models/params/infer", b"{").status == 400
    good = {
        "inputs": [
            {"name": each["name"], "shape": [1], "datatype": each["datatype"], "data": [1]}
            for each in metadata["inputs"]
        ]
    }
    answer = shared_gateway.post("/v2/models/params/infer", good)
    assert answer.status == 200, answer
    after = count("200"), count("400"), value(shared_gateway, "modelhub_request_seconds_count", **labels)
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 1, 2]
    assert value(shared_gateway, "modelhub_request_phase_seconds_sum", **labels, phase="predict") > predict
    assert value(shared_gateway, "modelhub_model_ready", **labels) == 1


def test_one_broken_model_and_limits_of_ones_own(gateway: Callable[..., Gateway], models: Path, tmp_path: Path) -> None:
    entries = [{"name": "identity", "uri": str(models / "identity")}, {"name": "broken", "uri": str(tmp_path / "none")}]
    running = gateway({"server": {"max_body": "2KiB", "admin": "off"}, "models": entries})
    running.wait_ready("identity")
    running.wait_log("broken")

    assert running.post("/v2/models/identity/infer", BODY).status == 200
    assert running.post("/v2/models/identity/infer", b" " * 3000).status == 413
    assert running.get("/status").status == 404

    refused = running.post("/v2/models/broken/infer", BODY)
    assert refused.status == 503
    assert "FAILED" in refused.json()["error"]
    assert int(refused.headers["retry-after"]) >= 1
    ready = running.get("/v2/health/ready")
    assert (ready.status, ready.json()["ready"]) == (503, False)
    [reason] = ready.json()["reasons"].values()
    assert reason.startswith("FAILED: ")
    states = {row["name"]: row["state"] for row in running.post("/v2/repository/index", b'{"ready": false}').json()}
    assert states == {"identity": "READY", "broken": "UNAVAILABLE"}
